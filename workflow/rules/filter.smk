# Which images of a corpus are accepted: corpus/*.parquet are as generated, *.filter.json beside them
# the filter's verdicts. Changed thresholds regenerate no image except replacements of rejected ones.
FILTER_SEGMENTER = f"{RUN}/segment/{SEGMENTERS[0]}/{real_arm(CONFIG)}-{{labels}}/seed0.safetensors"


rule filter_thresholds:
    input:
        config=ancient(f"{RUN}/config.yaml"),
        tables=TABLES,
        splits=f"{RUN}/splits.parquet",
        # A segmenter of the same label budget, trained on real images.
        weights=FILTER_SEGMENTER,
    output:
        thresholds=f"{RUN}/labels{{labels}}/filter.json",
        reference=f"{RUN}/labels{{labels}}/filter_reference.safetensors",
    log:
        f"{RUN}/logs/filter_thresholds/labels{{labels}}.log",
    benchmark:
        f"{RUN}/benchmarks/filter_thresholds/labels{{labels}}.tsv"
    threads: ALL_CORES
    resources:
        mem_mb=grown_mb(4000),
        runtime=grown_minutes(60),
        gpu=1,
    params:
        code=code_of("stdiff.filtering.filter"),
        fold=CONFIG.split.fold,
        # A function, or the braces of a template would be read as wildcards.
        tails=lambda _: CONFIG.corpus.filter.tails,
        decoupling=CONFIG.model.gate.model_dump_json(),
        segmenter=SEGMENTERS[0],
    shell:
        "stdiff filter calibrate --config {input.config} --cases {input.tables}"
        " --splits {input.splits} --segmenter {params.segmenter} --weights {input.weights}"
        " --labels {wildcards.labels} --out {output.thresholds} --reference {output.reference} --threads {threads}"
        " > {log} 2>&1"


rule filter:
    input:
        config=ancient(f"{RUN}/config.yaml"),
        shard=f"{RUN}/labels{{labels}}/corpus/{{part}}.parquet",
        thresholds=f"{RUN}/labels{{labels}}/filter.json",
        reference=f"{RUN}/labels{{labels}}/filter_reference.safetensors",
        weights=FILTER_SEGMENTER,
    output:
        f"{RUN}/labels{{labels}}/corpus/{{part}}.filter.json",
    log:
        f"{RUN}/logs/filter/labels{{labels}}-{{part}}.log",
    benchmark:
        f"{RUN}/benchmarks/filter/labels{{labels}}-{{part}}.tsv"
    threads: ALL_CORES
    resources:
        mem_mb=grown_mb(4000),
        runtime=grown_minutes(60),
        gpu=1,
    params:
        code=code_of("stdiff.filtering.filter"),
        segmenter=SEGMENTERS[0],
    shell:
        "stdiff filter apply {input.shard} --config {input.config} --thresholds {input.thresholds}"
        " --reference {input.reference} --segmenter {params.segmenter} --weights {input.weights}"
        " --out {output} --threads {threads} > {log} 2>&1"


if CONFIG.corpus.filter.replacement_rounds:

    rule replacements:
        input:
            config=ancient(f"{RUN}/config.yaml"),
            # The round before; the shard itself is round 0.
            shard=lambda w: (
                f"{RUN}/labels{w.labels}/corpus/{CONFIG.corpus.part_before(w.shard, int(w.number))}"
                ".parquet"
            ),
            verdicts=lambda w: (
                f"{RUN}/labels{w.labels}/corpus/{CONFIG.corpus.part_before(w.shard, int(w.number))}"
                ".filter.json"
            ),
        output:
            f"{RUN}/labels{{labels}}/replacements/{{shard}}r{{number}}.parquet",
        log:
            f"{RUN}/logs/replacements/labels{{labels}}-{{shard}}r{{number}}.log",
        benchmark:
            f"{RUN}/benchmarks/replacements/labels{{labels}}-{{shard}}r{{number}}.tsv"
        threads: 1
        resources:
            mem_mb=grown_mb(2000),
            runtime=grown_minutes(10),
        params:
            code=code_of("stdiff.corpus.replacements"),
        shell:
            "stdiff plan --config {input.config} --resample {input.shard} --out {output}"
            " > {log} 2>&1"

    rule replacement_shard:
        input:
            config=ancient(f"{RUN}/config.yaml"),
            plan=f"{RUN}/labels{{labels}}/replacements/{{shard}}r{{number}}.parquet",
            model=f"{RUN}/labels{{labels}}/{GENERATOR}",
        output:
            f"{RUN}/labels{{labels}}/corpus/{{shard}}r{{number}}.parquet",
        log:
            f"{RUN}/logs/replacement_shard/labels{{labels}}-{{shard}}r{{number}}.log",
        benchmark:
            f"{RUN}/benchmarks/replacement_shard/labels{{labels}}-{{shard}}r{{number}}.tsv"
        threads: ALL_CORES
        resources:
            mem_mb=grown_mb(4000),
            runtime=120,
            gpu=1,
        params:
            code=code_of("stdiff.corpus.generate"),
            settings=CONFIG.sampler.model_dump_json(),
            shard_size=CONFIG.corpus.shard_size,
        shell:
            "stdiff generate --config {input.config} --plan {input.plan} --model {input.model}"
            " --shard 0 --out {output} --threads {threads} > {log} 2>&1"
