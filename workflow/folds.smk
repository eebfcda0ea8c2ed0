# All folds of a k-fold, each a separate run, and the gain over the test cases of all folds.
#
#   snakemake --snakefile workflow/folds.smk --cores all --configfile config/busi_cpu.yaml \
#       --config data_root=FOLDER split='{folds: 5}'
#
# Fold k is written to results/<run>_fold<k>, the same as a run with split.fold: k.

from pathlib import Path

from snakemake.exceptions import WorkflowError

from stdiff.config.run import ConfigError, parse_config, refresh_config
from stdiff.runtime.provenance import code_of
from stdiff.runtime.resources import grown_mb, grown_minutes
from stdiff.downstream.arms import per_case_tables
from stdiff.runtime.slurm import check_executor


container: "envs/stdiff.sif"


# Only used with `--sdm conda`.
conda: "../envs/stdiff.yaml"


if not workflow.config_settings.configfiles:

    configfile: "config/demo.yaml"


try:
    CONFIG = parse_config(config)
except ConfigError as error:
    raise WorkflowError(str(error)) from None
if CONFIG.split.folds is None:
    raise WorkflowError("split.folds is null, a hold-out; set it, e.g. --config split='{folds: 5}'")

# Configurations of the folds by the prefix of their rule names.
FOLDS = {
    f"fold{fold}_": config
    | {
        "run": f"{CONFIG.run}_fold{fold}",
        "split": config.get("split", {}) | {"fold": fold},
    }
    for fold in range(CONFIG.split.folds)
}
PARSED = [parse_config(values) for values in FOLDS.values()]


onstart:
    check_executor(workflow)
    for one in PARSED:
        run = Path("results") / one.run
        refresh_config(one, run / "state" / "config.yaml", run / "config.yaml")


for FOLD, FOLD_CONFIG in FOLDS.items():

    module:
        name: FOLD
        snakefile:
            "../Snakefile"
        config:
            FOLD_CONFIG

    use rule * from FOLD as FOLD*


# Defined after the modules, so that their default targets do not replace this one.
localrules:
    all_folds,


rule all_folds:
    default_target: True
    input:
        f"results/{CONFIG.run}_folds/gain.json",
        [f"results/{one.run}/report/index.html" for one in PARSED],


rule gain_over_folds:
    input:
        config=ancient(f"results/{PARSED[0].run}/config.yaml"),
        tables=[f"results/{one.run}/{table}" for one in PARSED for table in per_case_tables(one)],
    output:
        f"results/{CONFIG.run}_folds/gain.json",
    log:
        f"results/{CONFIG.run}_folds/logs/gain.log",
    benchmark:
        f"results/{CONFIG.run}_folds/benchmarks/gain.tsv"
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
