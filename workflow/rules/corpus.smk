# One synthetic corpus for each label fraction: first the prior of its masks, then the plan, then its
# shards. gate.smk judges them.


rule mask_prior:
    input:
        tables=TABLES,
        splits=f"{RUN}/splits.parquet",
        code=modules_of("stdiff.masks.fitting", "stdiff.corpus.plan"),
    output:
        f"{RUN}/labels{{percent}}/mask_prior.json",
    log:
        f"{RUN}/logs/mask_prior/labels{{percent}}.log",
    benchmark:
        f"{RUN}/benchmarks/mask_prior/labels{{percent}}.tsv"
    threads: 1
    resources:
        mem_mb=2000,
        runtime=30,
    params:
        fold=CONFIG.split.fold,
    shell:
        "stdiff masks fit --cases {input.tables} --splits {input.splits} --fold {params.fold}"
        " --label-percent {wildcards.percent} --out {output} 2>&1 | tee -i {log}"


rule plan:
    input:
        config=ancient(f"{RUN}/config.yaml"),
        tables=TABLES,
        splits=f"{RUN}/splits.parquet",
        prior=f"{RUN}/labels{{percent}}/mask_prior.json",
        code=modules_of("stdiff.corpus.plan"),
    output:
        f"{RUN}/labels{{percent}}/plan.parquet",
    log:
        f"{RUN}/logs/plan/labels{{percent}}.log",
    benchmark:
        f"{RUN}/benchmarks/plan/labels{{percent}}.tsv"
    threads: 1
    resources:
        mem_mb=2000,
        runtime=60,
    params:
        fold=CONFIG.split.fold,
        settings=lambda w: CONFIG.masks.model_dump_json(exclude={"compared"}),
        images=CONFIG.corpus.count,
        seed=CONFIG.seed,
    shell:
        "stdiff plan --config {input.config} --cases {input.tables} --splits {input.splits}"
        " --prior {input.prior} --label-percent {wildcards.percent} --count {params.images}"
        " --seed {params.seed} --out {output} 2>&1 | tee -i {log}"


rule sampled_masks:
    input:
        tables=TABLES,
        splits=f"{RUN}/splits.parquet",
        prior=f"{RUN}/labels{{percent}}/mask_prior.json",
        code=modules_of("stdiff.corpus.plan"),
    output:
        f"{RUN}/labels{{percent}}/masks/{{kind}}.parquet",
    log:
        f"{RUN}/logs/sampled_masks/labels{{percent}}-{{kind}}.log",
    benchmark:
        f"{RUN}/benchmarks/sampled_masks/labels{{percent}}-{{kind}}.tsv"
    threads: 1
    resources:
        mem_mb=2000,
        runtime=30,
    params:
        fold=CONFIG.split.fold,
        masks=CONFIG.masks.compared,
        size=CONFIG.image.size_px,
        seed=CONFIG.seed,
    shell:
        "stdiff masks sample --kind {wildcards.kind} --prior {input.prior} --cases {input.tables}"
        " --splits {input.splits} --fold {params.fold} --label-percent {wildcards.percent}"
        " --size {params.size} --count {params.masks} --seed {params.seed} --out {output}"
        " 2>&1 | tee -i {log}"


rule mask_realism:
    input:
        tables=TABLES,
        splits=f"{RUN}/splits.parquet",
        masks=expand(f"{RUN}/labels{{{{percent}}}}/masks/{{kind}}.parquet", kind=MASK_KINDS),
        code=modules_of("stdiff.evaluation.masks"),
    output:
        f"{RUN}/labels{{percent}}/mask_realism.json",
    log:
        f"{RUN}/logs/mask_realism/labels{{percent}}.log",
    benchmark:
        f"{RUN}/benchmarks/mask_realism/labels{{percent}}.tsv"
    threads: ALL_CORES
    resources:
        mem_mb=4000,
        runtime=60,
    params:
        fold=CONFIG.split.fold,
        masks=CONFIG.masks.compared,
        seed=CONFIG.seed,
    shell:
        "stdiff masks evaluate {input.masks} --cases {input.tables} --splits {input.splits}"
        " --fold {params.fold} --label-percent {wildcards.percent} --at-most {params.masks}"
        " --seed {params.seed} --out {output} --threads {threads} 2>&1 | tee -i {log}"


rule shard:
    input:
        config=ancient(f"{RUN}/config.yaml"),
        plan=f"{RUN}/labels{{percent}}/plan.parquet",
        model=f"{RUN}/labels{{percent}}/model",
        code=modules_of("stdiff.corpus.generate"),
    output:
        f"{RUN}/labels{{percent}}/images/{{shard}}.parquet",
    log:
        f"{RUN}/logs/shard/labels{{percent}}-{{shard}}.log",
    benchmark:
        f"{RUN}/benchmarks/shard/labels{{percent}}-{{shard}}.tsv"
    threads: ALL_CORES
    resources:
        mem_mb=4000,
        runtime=120,
        gpu=1,
    params:
        settings=CONFIG.sampler.model_dump_json(),
        shard_size=CONFIG.corpus.shard_size,
        number=lambda w: int(w.shard),
    shell:
        "stdiff generate --config {input.config} --plan {input.plan} --model {input.model}"
        " --shard {params.number} --out {output} --threads {threads} 2>&1 | tee -i {log}"
