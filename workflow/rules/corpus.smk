# One synthetic corpus for each label fraction: first the plan, then its shards.


rule plan:
    input:
        config=ancient(f"{RUN}/config.yaml"),
        tables=TABLES,
        splits=f"{RUN}/splits.parquet",
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
        settings=CONFIG.masks.model_dump_json(),
        images=CONFIG.corpus.count,
        seed=CONFIG.seed,
    shell:
        "stdiff plan --config {input.config} --cases {input.tables} --splits {input.splits}"
        " --label-percent {wildcards.percent} --count {params.images} --seed {params.seed}"
        " --out {output} 2>&1 | tee -i {log}"


rule shard:
    input:
        config=ancient(f"{RUN}/config.yaml"),
        plan=f"{RUN}/labels{{percent}}/plan.parquet",
        model=f"{RUN}/labels{{percent}}/model",
        code=modules_of("stdiff.corpus.generate"),
    output:
        f"{RUN}/labels{{percent}}/shards/{{shard}}.parquet",
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
