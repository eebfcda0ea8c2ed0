# One page of the whole run.


rule report:
    input:
        config=ancient(f"{RUN}/config.yaml"),
        tables=TABLES,
        splits=f"{RUN}/splits.parquet",
        models=expand(f"{RUN}/labels{{percent}}/model", percent=PERCENTS),
        shards=[shard for shards in SHARDS.values() for shard in shards],
        evaluations=expand(f"{RUN}/labels{{percent}}/evaluation.json", percent=PERCENTS),
        gain=f"{RUN}/gain.json",
        code=modules_of("stdiff.report.page"),
        template="stdiff/report/page.html.j2",
    output:
        report(
            f"{RUN}/report/index.html",
            caption="../report/page.rst",
            category="The run",
        ),
    log:
        f"{RUN}/logs/report.log",
    benchmark:
        f"{RUN}/benchmarks/report.tsv"
    threads: 1
    resources:
        mem_mb=4000,
        runtime=30,
    params:
        run=subpath(input.config, parent=True),
        folder=subpath(output[0], parent=True),
    shell:
        "stdiff report {params.run} --out {params.folder} 2>&1 | tee -i {log}"
