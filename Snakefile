# From raw breast-ultrasound collections to the Dice gain of synthetic images.
#
#   snakemake --cores all                                          the demo, on simulated data
#   snakemake --cores all --configfile config/busi_cpu.yaml --config data_root=FOLDER
#
# Every step is one `stdiff` command; `snakemake -np` prints them, and each can be run by hand.

from pathlib import Path

from snakemake.exceptions import WorkflowError

from stdiff.config.run import ConfigError, check_raw_folders, parse_config, refresh_config
from stdiff.datasets.readers import places_of
from stdiff.runtime.provenance import code_of, listing_of, source_of
from stdiff.runtime.resources import grown_mb, grown_minutes
from stdiff.downstream.arms import per_case_tables, real_arm
from stdiff.runtime.slurm import check_executor


# Only used with `--sdm apptainer`; build it with `apptainer build envs/stdiff.sif envs/stdiff.def`.
container: "envs/stdiff.sif"


# Only used with `--sdm conda`.
conda: "envs/stdiff.yaml"


if not workflow.config_settings.configfiles:

    configfile: "config/demo.yaml"


try:
    CONFIG = parse_config(config, workflow.configfiles)
    check_raw_folders(CONFIG)
except ConfigError as error:
    raise WorkflowError(str(error)) from None

RUN = f"results/{CONFIG.run}"
# Rules depend on keys in `params`, not on config.yaml, which they take as `ancient`. A changed key must
# not rerun the job that writes config.yaml: Snakemake would then rerun all jobs after it without looking
# at their params. `onstart` updates the file instead.
MERGED_CONFIG = f"{RUN}/state/config.yaml"
TABLES = expand(f"{RUN}/cases/{{collection}}.parquet", collection=list(CONFIG.collections))
BUDGETS = [budget.slug for budget in CONFIG.segmentation.budgets]
MOST = max(CONFIG.segmentation.budgets).slug
SEGMENTERS = list(CONFIG.segmentation.segmenters)
# The segmenter that judges synthetic images is trained on real images only, with the largest budget.
JUDGE = f"{RUN}/segment/{SEGMENTERS[0]}/{real_arm(CONFIG)}-{MOST}/seed0"
# Shards and replacements, and the filter's verdicts beside them; every later step reads both.
SHARDS, VERDICTS = (
    {
        labels: expand(f"{RUN}/labels{labels}/corpus/{{part}}{kind}", part=CONFIG.corpus.parts)
        for labels in BUDGETS
    }
    for kind in (".parquet", ".filter.json")
)
# The model that generates the corpus: the fine-tuned one, or the one distilled from it.
GENERATOR = "distilled" if CONFIG.training.distill else "model"
# Kinds of mask that the report compares with real ones if masks.compared > 0.
MASK_KINDS = ["curvature", "bank", "ellipse"]
COMPARED_MASKS = f"{RUN}/labels{MOST}"
# A corpus as one file, so that a job that reads it does not have a thousand shards as inputs.
CORPUS = f"{RUN}/labels{{labels}}/corpus/shards.txt"
# The corpus that a segmenter or classifier of each arm is trained on.
CORPUS_OF_ARM = {
    name: CORPUS if arm.uses_corpus else [] for name, arm in CONFIG.segmentation.arms.items()
}
# Measured: two torch processes at once on two cores are 3-6 times slower than one after the other.
ALL_CORES = min(workflow.resource_settings.cores or 8, 16)


# Slurm sends SIGTERM to all processes of a job. The command then saves its state; the shell must ignore
# the signal, or the job would end and the command be killed before it has saved. A command's output goes
# to its log only; the logger plugin reads progress and errors from there.
shell.prefix("set -euo pipefail; trap : TERM; ")


wildcard_constraints:
    collection="[a-z_]+",
    labels=r"\d+(cases)?",
    shard=r"\d{5}",
    number=r"\d",
    part=r"\d{5}(r\d)?",
    kind="|".join(MASK_KINDS),
    segmenter="[a-z0-9_]+",
    target="[a-z]+",
    arm="[a-z0-9_]+",
    repetition=r"\d+",


# These take a second; not worth a cluster job.
localrules:
    all,
    merged_config,
    phantom,
    check,
    corpus_list,
    audit,


onstart:
    check_executor(workflow)
    refresh_config(CONFIG, Path(MERGED_CONFIG), Path(RUN) / "config.yaml")


rule all:
    default_target: True
    input:
        f"{RUN}/report/index.html",
        expand(f"{RUN}/labels{{labels}}/corpus/README.md", labels=BUDGETS),


include: "workflow/rules/data.smk"
include: "workflow/rules/train.smk"
include: "workflow/rules/corpus.smk"
include: "workflow/rules/filter.smk"
include: "workflow/rules/segment.smk"
include: "workflow/rules/classify.smk"
include: "workflow/rules/evaluate.smk"
include: "workflow/rules/report.smk"
