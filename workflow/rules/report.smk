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
        page=report(
            f"{RUN}/report/index.html",
            caption="../report/page.rst",
            category="The run",
            labels={"figure": "the whole page"},
        ),
        dice=report(
            f"{RUN}/report/figures/dice_by_arm.png",
            caption="../report/dice_by_arm.rst",
            category="Dice",
            labels={"figure": "Dice by arm"},
        ),
        curves=report(
            f"{RUN}/report/figures/training_curves.png",
            caption="../report/training_curves.rst",
            category="Training",
            labels={"figure": "training curves"},
        ),
        samples=[
            report(
                f"{RUN}/report/figures/samples_labels{labels}.png",
                caption="../report/samples.rst",
                category="Corpora",
                labels={"figure": "samples", "labels": str(LabelBudget.parse(labels))},
            )
            for labels in BUDGETS
        ],
        filters=[
            report(
                f"{RUN}/report/figures/filter_labels{labels}.png",
                caption="../report/filter.rst",
                category="Corpora",
                labels={"figure": "scores of the filter", "labels": str(LabelBudget.parse(labels))},
            )
            for labels in BUDGETS
        ],
        sheets=[
            report(
                f"{RUN}/report/figures/real_and_generated_labels{labels}.png",
                caption="../report/real_and_generated.rst",
                category="Corpora",
                labels={
                    "figure": "test and generated images",
                    "labels": str(LabelBudget.parse(labels)),
                },
            )
            for labels in BUDGETS
        ],
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
        folder=subpath(output.page, parent=True),
    shell:
        "stdiff report {params.run} --out {params.folder} 2>&1 | tee -i {log}"
