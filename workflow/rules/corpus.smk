# One synthetic corpus for each label budget: first the prior of its masks, then its shards
# (filtered by filter.smk).


rule mask_prior:
    input:
        tables=TABLES,
        splits=f"{RUN}/splits.parquet",
        checked=ancient(f"{RUN}/checked"),
    output:
        f"{RUN}/labels{{labels}}/mask_prior.json",
    log:
        f"{RUN}/logs/mask_prior/labels{{labels}}.log",
    benchmark:
        f"{RUN}/benchmarks/mask_prior/labels{{labels}}.tsv"
    threads: 1
    resources:
        mem_mb=grown_mb(2000),
        runtime=grown_minutes(30),
    params:
        code=code_of("stdiff.masks.fitting", "stdiff.corpus.plan"),
        fold=CONFIG.split.fold,
    shell:
        "stdiff masks fit --cases {input.tables} --splits {input.splits} --fold {params.fold}"
        " --labels {wildcards.labels} --out {output} > {log} 2>&1"


rule sampled_masks:
    input:
        tables=TABLES,
        splits=f"{RUN}/splits.parquet",
        prior=f"{RUN}/labels{{labels}}/mask_prior.json",
    output:
        f"{RUN}/labels{{labels}}/masks/{{kind}}.parquet",
    log:
        f"{RUN}/logs/sampled_masks/labels{{labels}}-{{kind}}.log",
    benchmark:
        f"{RUN}/benchmarks/sampled_masks/labels{{labels}}-{{kind}}.tsv"
    threads: 1
    resources:
        mem_mb=grown_mb(2000),
        runtime=grown_minutes(30),
    params:
        code=code_of("stdiff.corpus.plan"),
        fold=CONFIG.split.fold,
        masks=CONFIG.masks.compared,
        size=CONFIG.image.size_px,
        seed=CONFIG.seed,
    shell:
        "stdiff masks sample --kind {wildcards.kind} --prior {input.prior} --cases {input.tables}"
        " --splits {input.splits} --fold {params.fold} --labels {wildcards.labels}"
        " --size {params.size} --count {params.masks} --seed {params.seed} --out {output}"
        " > {log} 2>&1"


rule mask_realism:
    input:
        tables=TABLES,
        splits=f"{RUN}/splits.parquet",
        masks=expand(f"{RUN}/labels{{{{labels}}}}/masks/{{kind}}.parquet", kind=MASK_KINDS),
    output:
        f"{RUN}/labels{{labels}}/mask_realism.json",
    log:
        f"{RUN}/logs/mask_realism/labels{{labels}}.log",
    benchmark:
        f"{RUN}/benchmarks/mask_realism/labels{{labels}}.tsv"
    threads: ALL_CORES
    resources:
        mem_mb=grown_mb(4000),
        runtime=grown_minutes(60),
    params:
        code=code_of("stdiff.evaluation.mask_evaluation"),
        fold=CONFIG.split.fold,
        masks=CONFIG.masks.compared,
        seed=CONFIG.seed,
    shell:
        "stdiff masks evaluate {input.masks} --cases {input.tables} --splits {input.splits}"
        " --fold {params.fold} --labels {wildcards.labels} --at-most {params.masks}"
        " --seed {params.seed} --out {output} --threads {threads} > {log} 2>&1"


# Each row of a plan depends on its index only, so each shard plans its own rows: a larger corpus
# adds shards and leaves the existing ones unchanged.
rule shard:
    input:
        config=ancient(f"{RUN}/config.yaml"),
        tables=TABLES,
        splits=f"{RUN}/splits.parquet",
        prior=f"{RUN}/labels{{labels}}/mask_prior.json",
        model=f"{RUN}/labels{{labels}}/{GENERATOR}",
    output:
        plan=f"{RUN}/labels{{labels}}/plan/{{shard}}.parquet",
        images=f"{RUN}/labels{{labels}}/corpus/{{shard}}.parquet",
    log:
        f"{RUN}/logs/shard/labels{{labels}}-{{shard}}.log",
    benchmark:
        f"{RUN}/benchmarks/shard/labels{{labels}}-{{shard}}.tsv"
    threads: ALL_CORES
    resources:
        mem_mb=grown_mb(4000),
        runtime=120,
        gpu=1,
    params:
        code=code_of("stdiff.corpus.generate"),
        fold=CONFIG.split.fold,
        masks=lambda _: CONFIG.masks.model_dump_json(exclude={"compared"}),
        backgrounds=CONFIG.corpus.backgrounds,
        sampler=CONFIG.sampler.model_dump_json(),
        seed=CONFIG.seed,
        first=lambda w: int(w.shard) * CONFIG.corpus.shard_size,
        rows=lambda w: CONFIG.corpus.rows_of(int(w.shard)),
    shell:
        "(stdiff plan --config {input.config} --cases {input.tables} --splits {input.splits}"
        " --prior {input.prior} --labels {wildcards.labels} --first {params.first}"
        " --count {params.rows} --seed {params.seed} --out {output.plan}"
        " && stdiff generate --config {input.config} --plan {output.plan} --model {input.model}"
        " --shard 0 --out {output.images} --threads {threads}) > {log} 2>&1"


rule corpus_list:
    input:
        config=ancient(f"{RUN}/config.yaml"),
        shards=lambda w: SHARDS[w.labels],
        verdicts=lambda w: VERDICTS[w.labels],
    output:
        CORPUS,
    log:
        f"{RUN}/logs/corpus_list/labels{{labels}}.log",
    benchmark:
        f"{RUN}/benchmarks/corpus_list/labels{{labels}}.tsv"
    threads: 1
    resources:
        mem_mb=grown_mb(500),
        runtime=grown_minutes(10),
    params:
        code=code_of("stdiff.table.shard_list"),
        parts=len(CONFIG.corpus.parts),
        folder=subpath(output[0], parent=True),
    shell:
        "stdiff corpus list {params.folder} --config {input.config} --out {output}" " > {log} 2>&1"


rule corpus_card:
    input:
        config=ancient(f"{RUN}/config.yaml"),
        tables=TABLES,
        corpus=CORPUS,
    output:
        card=f"{RUN}/labels{{labels}}/corpus/README.md",
        sheet=f"{RUN}/labels{{labels}}/corpus/sheet.png",
    log:
        f"{RUN}/logs/corpus_card/labels{{labels}}.log",
    benchmark:
        f"{RUN}/benchmarks/corpus_card/labels{{labels}}.tsv"
    threads: 1
    resources:
        mem_mb=grown_mb(2000),
        runtime=grown_minutes(30),
    params:
        code=code_of("stdiff.report.corpus_card", "stdiff.report.corpus_figures"),
        backgrounds=CONFIG.corpus.backgrounds,
        seed=CONFIG.seed,
    shell:
        "(stdiff corpus card @{input.corpus} --cases {input.tables} --config {input.config}"
        " --out {output.card} && stdiff corpus show @{input.corpus} --out {output.sheet})"
        " > {log} 2>&1"
