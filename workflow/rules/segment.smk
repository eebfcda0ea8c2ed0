# Segmenter x arm x label budget x seed; each writes a table with one row a test case.

# The gate, the watch and the evaluation need this training.
JUDGING = (SEGMENTERS[0], real_arm(CONFIG), "0")


rule segment:
    input:
        config=ancient(f"{RUN}/config.yaml"),
        tables=TABLES,
        splits=f"{RUN}/splits.parquet",
        corpus=lambda w: expand(CORPUS_OF_ARM[w.arm], labels=w.labels),
        own=lambda w: source_of(CONFIG.segmentation.segmenters[w.segmenter].network),
    output:
        table=f"{RUN}/segment/{{segmenter}}/{{arm}}-{{labels}}/seed{{seed}}.parquet",
        weights=f"{RUN}/segment/{{segmenter}}/{{arm}}-{{labels}}/seed{{seed}}.safetensors",
    log:
        f"{RUN}/logs/segment/{{segmenter}}-{{arm}}-{{labels}}-seed{{seed}}.log",
    benchmark:
        f"{RUN}/benchmarks/segment/{{segmenter}}-{{arm}}-{{labels}}-seed{{seed}}.tsv"
    threads: ALL_CORES
    resources:
        mem_mb=grown_mb(6000),
        runtime=480,
        gpu=1,
    params:
        code=code_of("stdiff.downstream.segment"),
        fold=CONFIG.split.fold,
        state=f"{RUN}/state/segment/{{segmenter}}-{{arm}}-{{labels}}-seed{{seed}}",
        settings=CONFIG.segmentation.training.model_dump_json(),
        segmenter=lambda w: CONFIG.segmentation.segmenters[w.segmenter].model_dump_json(),
        corpus=lambda _, input: [f"@{path}" for path in input.corpus],
        arm=lambda w: CONFIG.segmentation.arms[w.arm].model_dump_json(),
        # One failed training leaves a hole in the report; without the judge there is no report.
        failing=lambda w: "" if (w.segmenter, w.arm, w.seed) == JUDGING else "--allow-failure",
        seed=CONFIG.seed,
    shell:
        "stdiff segment --config {input.config} --cases {input.tables} --splits {input.splits}"
        " --segmenter {wildcards.segmenter} --arm {wildcards.arm}-{wildcards.labels}"
        " --repetition {wildcards.seed} --corpus {params.corpus} --state {params.state}"
        " {params.failing}"
        " --out {output.table} --weights {output.weights} --threads {threads} 2>&1 | tee -i {log}"
