# One page of the whole run.


rule report:
    input:
        config=ancient(f"{RUN}/config.yaml"),
        tables=TABLES,
        quarantine=expand(
            f"{RUN}/quarantine/{{collection}}.parquet", collection=list(CONFIG.collections)
        ),
        splits=f"{RUN}/splits.parquet",
        duplicates=f"{RUN}/duplicates.parquet",
        models=expand(f"{RUN}/labels{{labels}}/model", labels=BUDGETS),
        filters=expand(f"{RUN}/labels{{labels}}/filter.json", labels=BUDGETS),
        corpora=expand(CORPUS, labels=BUDGETS),
        evaluations=expand(f"{RUN}/labels{{labels}}/evaluation.json", labels=BUDGETS),
        gain=f"{RUN}/gain.json",
        audit=f"{RUN}/audit.json",
        auc=[f"{RUN}/auc.json"] if CONFIG.classification else [],
        priors=expand(f"{RUN}/labels{{labels}}/mask_prior.json", labels=BUDGETS),
        mask_realism=[f"{COMPARED_MASKS}/mask_realism.json"] * bool(CONFIG.masks.compared),
        template="stdiff/report/page.html.j2",
    output:
        f"{RUN}/report/index.html",
    log:
        f"{RUN}/logs/report.log",
    benchmark:
        f"{RUN}/benchmarks/report.tsv"
    threads: 1
    resources:
        mem_mb=grown_mb(4000),
        runtime=grown_minutes(30),
    params:
        code=code_of("stdiff.report.page"),
        fold=CONFIG.split.fold,
        run=subpath(input.config, parent=True),
        folder=subpath(output[0], parent=True),
    shell:
        "stdiff report {params.run} --out {params.folder} > {log} 2>&1"
