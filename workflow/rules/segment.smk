# Segmenter x arm x label budget x repetition; each job writes a table with one row per test case.

# The reference segmenter: filter, validation of stage 2 and evaluation need it, so it may not fail.
REFERENCE_TRAINING = (SEGMENTERS[0], real_arm(CONFIG), "0")


rule segment:
    input:
        config=ancient(f"{RUN}/config.yaml"),
        tables=TABLES,
        splits=f"{RUN}/splits.parquet",
        checked=ancient(f"{RUN}/checked"),
        corpus=lambda w: expand(CORPUS_OF_ARM[w.arm], labels=w.labels),
        own=lambda w: source_of(CONFIG.segmentation.segmenters[w.segmenter].network),
    output:
        table=f"{RUN}/segment/{{segmenter}}/{{arm}}-{{labels}}/seed{{repetition}}.parquet",
        weights=f"{RUN}/segment/{{segmenter}}/{{arm}}-{{labels}}/seed{{repetition}}.safetensors",
    log:
        f"{RUN}/logs/segment/{{segmenter}}-{{arm}}-{{labels}}-seed{{repetition}}.log",
    benchmark:
        f"{RUN}/benchmarks/segment/{{segmenter}}-{{arm}}-{{labels}}-seed{{repetition}}.tsv"
    threads: ALL_CORES
    resources:
        mem_mb=grown_mb(6000),
        runtime=480,
        gpu=1,
    params:
        code=code_of("stdiff.downstream.segment"),
        fold=CONFIG.split.fold,
        state=f"{RUN}/state/segment/{{segmenter}}-{{arm}}-{{labels}}-seed{{repetition}}",
        settings=CONFIG.segmentation.training.model_dump_json(),
        segmenter=lambda w: CONFIG.segmentation.segmenters[w.segmenter].model_dump_json(),
        corpus=lambda _, input: [f"@{path}" for path in input.corpus],
        arm=lambda w: CONFIG.segmentation.arms[w.arm].model_dump_json(),
        failure=lambda w: (
            "" if (w.segmenter, w.arm, w.repetition) == REFERENCE_TRAINING else "--allow-failure"
        ),
        seed=CONFIG.seed,
    shell:
        "stdiff segment --config {input.config} --cases {input.tables} --splits {input.splits}"
        " --segmenter {wildcards.segmenter} --arm {wildcards.arm}-{wildcards.labels}"
        " --repetition {wildcards.repetition} --corpus {params.corpus} --state {params.state}"
        " {params.failure}"
        " --out {output.table} --weights {output.weights} --threads {threads} > {log} 2>&1"
