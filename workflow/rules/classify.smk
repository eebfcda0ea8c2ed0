# Classifiers on the arms of the segmenters, if the configuration has a section classification.

CLASSIFIER_TABLES = [
    f"{RUN}/classify/{target}/{arm}-{labels}/seed{repetition}.parquet"
    for target in (CONFIG.classification.targets if CONFIG.classification else [])
    for arm, settings in CONFIG.segmentation.arms.items()
    if not settings.without_masks
    for labels in BUDGETS
    for repetition in range(CONFIG.segmentation.seeds)
]

if CONFIG.classification:

    rule classify:
        input:
            config=ancient(f"{RUN}/config.yaml"),
            tables=TABLES,
            splits=f"{RUN}/splits.parquet",
            checked=ancient(f"{RUN}/checked"),
            corpus=lambda w: expand(CORPUS_OF_ARM[w.arm], labels=w.labels),
        output:
            table=f"{RUN}/classify/{{target}}/{{arm}}-{{labels}}/seed{{repetition}}.parquet",
            weights=f"{RUN}/classify/{{target}}/{{arm}}-{{labels}}/seed{{repetition}}.safetensors",
        log:
            f"{RUN}/logs/classify/{{target}}-{{arm}}-{{labels}}-seed{{repetition}}.log",
        benchmark:
            f"{RUN}/benchmarks/classify/{{target}}-{{arm}}-{{labels}}-seed{{repetition}}.tsv"
        threads: ALL_CORES
        resources:
            mem_mb=grown_mb(6000),
            runtime=480,
            gpu=1,
        params:
            code=code_of("stdiff.downstream.classify"),
            fold=CONFIG.split.fold,
            state=f"{RUN}/state/classify/{{target}}-{{arm}}-{{labels}}-seed{{repetition}}",
            settings=CONFIG.classification.model_dump_json(exclude={"targets"}),
            corpus=lambda _, input: [f"@{path}" for path in input.corpus],
            arm=lambda w: CONFIG.segmentation.arms[w.arm].model_dump_json(),
            seed=CONFIG.seed,
        shell:
            "stdiff classify --config {input.config} --cases {input.tables}"
            " --splits {input.splits} --target {wildcards.target}"
            " --arm {wildcards.arm}-{wildcards.labels} --repetition {wildcards.repetition}"
            " --corpus {params.corpus} --state {params.state} --allow-failure --out {output.table}"
            " --weights {output.weights} --threads {threads} > {log} 2>&1"

    rule auc:
        input:
            config=ancient(f"{RUN}/config.yaml"),
            tables=CLASSIFIER_TABLES,
        output:
            f"{RUN}/auc.json",
        log:
            f"{RUN}/logs/auc.log",
        benchmark:
            f"{RUN}/benchmarks/auc.tsv"
        threads: 1
        resources:
            mem_mb=grown_mb(4000),
            runtime=grown_minutes(60),
        params:
            code=code_of("stdiff.evaluation.auc"),
            settings=CONFIG.evaluation.model_dump_json(),
            seed=CONFIG.seed,
        shell:
            "stdiff auc {input.tables} --config {input.config} --out {output} > {log} 2>&1"
