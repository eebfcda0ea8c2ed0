# Raw collections → case tables → splits.


rule merged_config:
    output:
        f"{RUN}/config.yaml",
    log:
        f"{RUN}/logs/merged_config.log",
    benchmark:
        f"{RUN}/benchmarks/merged_config.tsv"
    threads: 1
    resources:
        mem_mb=grown_mb(2000),
        runtime=grown_minutes(5),
    params:
        merged=MERGED_CONFIG,
    shell:
        "stdiff config --file {params.merged} --networks --out {output} > {log} 2>&1"


if CONFIG.phantom:

    rule phantom:
        output:
            [directory(CONFIG.raw_folder(name)) for name in CONFIG.collections],
        log:
            f"{RUN}/logs/phantom.log",
        benchmark:
            f"{RUN}/benchmarks/phantom.tsv"
        threads: 1
        resources:
            mem_mb=grown_mb(2000),
            runtime=grown_minutes(30),
        params:
            code=code_of("stdiff.simulation.collections"),
            raw=subpath(output[0], parent=True),
            cases=CONFIG.phantom.cases,
            size=CONFIG.phantom.size_px,
            seed=CONFIG.seed,
        shell:
            "stdiff phantom --out {params.raw} --cases {params.cases} --size {params.size}"
            " --seed {params.seed} > {log} 2>&1"


rule harmonize:
    input:
        # Real raw data is no input, as Snakemake would read braces in its path as wildcards and look at
        # the time stamps of folders and links. Its listing is a param.
        phantom=lambda w: str(CONFIG.raw_folder(w.collection)) if CONFIG.phantom else [],
    output:
        table=f"{RUN}/cases/{{collection}}.parquet",
        # Near-duplicates within the collection, which the command keeps beside the table.
        pairs=f"{RUN}/cases/{{collection}}_pairs.parquet",
        quarantine=f"{RUN}/quarantine/{{collection}}.parquet",
    log:
        f"{RUN}/logs/harmonize/{{collection}}.log",
    benchmark:
        f"{RUN}/benchmarks/harmonize/{{collection}}.tsv"
    wildcard_constraints:
        collection="|".join(CONFIG.collections),
    threads: ALL_CORES
    resources:
        mem_mb=grown_mb(2000),
        runtime=grown_minutes(60),
    params:
        code=code_of("stdiff.datasets.harmonize"),
        size=CONFIG.image.size_px,
        fit=CONFIG.image.fit,
        options=" ".join(
            flag
            for flag, wanted in (
                ("--crop-sector", CONFIG.image.crop_sector),
                ("--inpaint-marks", CONFIG.image.inpaint_marks),
            )
            if wanted
        ),
        limit=lambda w: (
            f"--limit {CONFIG.collections[w.collection].limit}"
            if CONFIG.collections[w.collection].limit
            else ""
        ),
        raw=lambda w: str(CONFIG.raw_folder(w.collection)),
        listing=lambda w: (
            None
            if CONFIG.phantom
            else listing_of(*places_of(w.collection, CONFIG.raw_folder(w.collection)))
        ),
        # BUS-CoT contains images of other collections; those of this run are not read twice.
        others=lambda w: [name for name in CONFIG.collections if name != w.collection],
    shell:
        "stdiff harmonize {wildcards.collection} {params.raw:q} --size {params.size}"
        " --fit {params.fit} {params.options} {params.limit} --processes {threads}"
        " --drop-sources {params.others}"
        " --out {output.table} --quarantine {output.quarantine} > {log} 2>&1"


FOLDS = CONFIG.split.published and CONFIG.raw_folder("bus_bra") / CONFIG.split.published


# Numbers of images that later steps need are checked here, the first place where they are known.
rule split:
    input:
        tables=TABLES,
        # Read beside the tables: only pairs across collections are searched.
        pairs=expand(rules.harmonize.output.pairs, collection=list(CONFIG.collections)),
    output:
        splits=f"{RUN}/splits.parquet",
        duplicates=f"{RUN}/duplicates.parquet",
    log:
        f"{RUN}/logs/split.log",
    benchmark:
        f"{RUN}/benchmarks/split.tsv"
    threads: ALL_CORES
    resources:
        mem_mb=grown_mb(2000),
        runtime=grown_minutes(30),
    params:
        code=code_of("stdiff.splitting.splits"),
        scheme=(
            f"--folds {CONFIG.split.folds}"
            if CONFIG.split.folds
            else f"--test {CONFIG.split.test}"
        ),
        # BUS-BRA's published folds, if the configuration names them.
        published=lambda w: ["--published", str(FOLDS)] if FOLDS else [],
        published_listing=lambda w: (listing_of(FOLDS) if FOLDS and not CONFIG.phantom else None),
        validation=CONFIG.split.validation,
        test_only=[name for name, c in CONFIG.collections.items() if c.test_only],
        seed=CONFIG.seed,
    shell:
        "stdiff split {input.tables} {params.scheme} {params.published:q}"
        " --test-only {params.test_only}"
        " --validation {params.validation} --seed {params.seed} --processes {threads}"
        " --duplicates {output.duplicates} --out {output.splits} > {log} 2>&1"


# Trainings wait for it, so that too few images are found before hours of training. It has no `code`: a
# rerun would repeat all trainings.
rule check:
    input:
        config=ancient(f"{RUN}/config.yaml"),
        tables=TABLES,
        splits=f"{RUN}/splits.parquet",
    output:
        touch(f"{RUN}/checked"),
    log:
        f"{RUN}/logs/check.log",
    benchmark:
        f"{RUN}/benchmarks/check.tsv"
    threads: 1
    resources:
        mem_mb=grown_mb(2000),
        runtime=grown_minutes(10),
    shell:
        "stdiff check --config {input.config} --cases {input.tables} --splits {input.splits}"
        " > {log} 2>&1"
