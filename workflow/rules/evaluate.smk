# Evaluation of the corpora, gains of the arms, and the audit for data leakage.

PER_CASE_TABLES = [f"{RUN}/{table}" for table in per_case_tables(CONFIG)]


rule evaluate:
    input:
        config=ancient(f"{RUN}/config.yaml"),
        tables=TABLES,
        splits=f"{RUN}/splits.parquet",
        corpus=CORPUS,
        weights=f"{JUDGE}.safetensors",
    output:
        f"{RUN}/labels{{labels}}/evaluation.json",
    log:
        f"{RUN}/logs/evaluate/labels{{labels}}.log",
    benchmark:
        f"{RUN}/benchmarks/evaluate/labels{{labels}}.tsv"
    threads: ALL_CORES
    resources:
        mem_mb=grown_mb(6000),
        runtime=grown_minutes(120),
        gpu=1,
    params:
        code=code_of("stdiff.evaluation.corpus"),
        fold=CONFIG.split.fold,
        settings=CONFIG.evaluation.model_dump_json(),
        segmenter=SEGMENTERS[0],
        seed=CONFIG.seed,
    shell:
        "stdiff evaluate --config {input.config} --cases {input.tables} --splits {input.splits}"
        " --corpus @{input.corpus} --segmenter {params.segmenter} --weights {input.weights}"
        " --labels {wildcards.labels} --out {output} --threads {threads}"
        " > {log} 2>&1"


rule gain:
    input:
        config=ancient(f"{RUN}/config.yaml"),
        tables=PER_CASE_TABLES,
    output:
        f"{RUN}/gain.json",
    log:
        f"{RUN}/logs/gain.log",
    benchmark:
        f"{RUN}/benchmarks/gain.tsv"
    threads: 1
    resources:
        mem_mb=grown_mb(2000),
        runtime=grown_minutes(60),
    params:
        code=code_of("stdiff.evaluation.gain"),
        settings=CONFIG.evaluation.model_dump_json(),
        seed=CONFIG.seed,
    shell:
        "stdiff gain {input.tables} --config {input.config} --out {output} > {log} 2>&1"


rule audit:
    input:
        config=ancient(f"{RUN}/config.yaml"),
        tables=TABLES,
        splits=f"{RUN}/splits.parquet",
        models=expand(f"{RUN}/labels{{labels}}/{GENERATOR}", labels=BUDGETS),
        priors=expand(f"{RUN}/labels{{labels}}/mask_prior.json", labels=BUDGETS),
        filters=expand(f"{RUN}/labels{{labels}}/filter.json", labels=BUDGETS),
        corpora=expand(CORPUS, labels=BUDGETS),
        trainings=PER_CASE_TABLES + CLASSIFIER_TABLES,
    output:
        f"{RUN}/audit.json",
    log:
        f"{RUN}/logs/audit.log",
    benchmark:
        f"{RUN}/benchmarks/audit.tsv"
    threads: 1
    resources:
        mem_mb=grown_mb(2000),
        runtime=grown_minutes(60),
    params:
        code=code_of("stdiff.evaluation.audit"),
        run=subpath(output[0], parent=True),
        fold=CONFIG.split.fold,
    shell:
        "stdiff audit {params.run} --out {output} > {log} 2>&1"
