# Training stages of the generator. Checkpoints are in {RUN}/state, not among the outputs, which
# Snakemake deletes before a rerun; so a stopped training resumes.
VALIDATED = CONFIG.training.finetune.validate_every_images is not None
OF_STAGE_2 = {"gate", "condition", "text_lora", "unet_lora"}


rule autoencoder:
    input:
        config=ancient(f"{RUN}/config.yaml"),
        tables=TABLES,
        splits=f"{RUN}/splits.parquet",
        checked=ancient(f"{RUN}/checked"),
    output:
        directory(f"{RUN}/autoencoder"),
    log:
        f"{RUN}/logs/autoencoder.log",
    benchmark:
        f"{RUN}/benchmarks/autoencoder.tsv"
    threads: ALL_CORES
    resources:
        mem_mb=grown_mb(4000),
        runtime=240,
        gpu=CONFIG.training.num_processes,
    params:
        code=code_of("stdiff.training.stages"),
        fold=CONFIG.split.fold,
        state=f"{RUN}/state/autoencoder",
        settings=CONFIG.training.model_dump_json(include={"autoencoder"}),
        model=CONFIG.model.model_dump_json(include={"autoencoder", "checkpoint"}),
        seed=CONFIG.seed,
    shell:
        "stdiff train autoencoder --config {input.config} --cases {input.tables}"
        " --splits {input.splits} --out {output} --state {params.state} --threads {threads}"
        " > {log} 2>&1"


rule pretrain:
    input:
        config=ancient(f"{RUN}/config.yaml"),
        tables=TABLES,
        splits=f"{RUN}/splits.parquet",
        autoencoder=f"{RUN}/autoencoder",
    output:
        directory(f"{RUN}/pretrain"),
    log:
        f"{RUN}/logs/pretrain.log",
    benchmark:
        f"{RUN}/benchmarks/pretrain.tsv"
    threads: ALL_CORES
    resources:
        mem_mb=grown_mb(4000),
        runtime=1440,
        gpu=CONFIG.training.num_processes,
    params:
        code=code_of("stdiff.training.stages"),
        fold=CONFIG.split.fold,
        state=f"{RUN}/state/pretrain",
        settings=CONFIG.training.pretrain.model_dump_json(),
        # A function, because Snakemake would read a template's braces as wildcards.
        model=lambda _: CONFIG.model.model_dump_json(exclude=OF_STAGE_2),
        seed=CONFIG.seed,
    shell:
        "stdiff train pretrain --config {input.config} --cases {input.tables}"
        " --splits {input.splits} --autoencoder {input.autoencoder} --out {output}"
        " --state {params.state} --threads {threads} > {log} 2>&1"


rule finetune:
    input:
        config=ancient(f"{RUN}/config.yaml"),
        tables=TABLES,
        splits=f"{RUN}/splits.parquet",
        base=f"{RUN}/pretrain",
        # A segmenter trained on real images of the same label budget.
        segmenter=(
            f"{RUN}/segment/{SEGMENTERS[0]}/{real_arm(CONFIG)}-{{labels}}/seed0.safetensors"
            if VALIDATED
            else []
        ),
    output:
        directory(f"{RUN}/labels{{labels}}/model"),
    log:
        f"{RUN}/logs/finetune/labels{{labels}}.log",
    benchmark:
        f"{RUN}/benchmarks/finetune/labels{{labels}}.tsv"
    threads: ALL_CORES
    resources:
        mem_mb=grown_mb(4000),
        runtime=1440,
        gpu=CONFIG.training.num_processes,
    params:
        code=code_of("stdiff.training.stages", "stdiff.evaluation.generator_validation"),
        fold=CONFIG.split.fold,
        state=f"{RUN}/state/finetune-{{labels}}",
        settings=CONFIG.training.finetune.model_dump_json(),
        model=CONFIG.model.model_dump_json(include=OF_STAGE_2),
        segmenter=lambda _, input: (
            f"--segmenter {SEGMENTERS[0]} --weights {input.segmenter}" if VALIDATED else ""
        ),
        seed=CONFIG.seed,
    shell:
        "stdiff train finetune --config {input.config} --cases {input.tables}"
        " --splits {input.splits} --base {input.base} --labels {wildcards.labels}"
        " --out {output} --state {params.state} {params.segmenter} --threads {threads}"
        " > {log} 2>&1"


if CONFIG.training.distill:

    rule distill:
        input:
            config=ancient(f"{RUN}/config.yaml"),
            tables=TABLES,
            splits=f"{RUN}/splits.parquet",
            base=f"{RUN}/labels{{labels}}/model",
        output:
            directory(f"{RUN}/labels{{labels}}/distilled"),
        log:
            f"{RUN}/logs/distill/labels{{labels}}.log",
        benchmark:
            f"{RUN}/benchmarks/distill/labels{{labels}}.tsv"
        threads: ALL_CORES
        resources:
            mem_mb=grown_mb(4000),
            runtime=1440,
            gpu=CONFIG.training.num_processes,
        params:
            code=code_of("stdiff.training.stages"),
            fold=CONFIG.split.fold,
            state=f"{RUN}/state/distill-{{labels}}",
            settings=CONFIG.training.distill.model_dump_json(),
            teacher=CONFIG.sampler.model_dump_json(),
            seed=CONFIG.seed,
        shell:
            "stdiff train distill --config {input.config} --cases {input.tables}"
            " --splits {input.splits} --base {input.base} --labels {wildcards.labels}"
            " --out {output} --state {params.state} --threads {threads} > {log} 2>&1"
