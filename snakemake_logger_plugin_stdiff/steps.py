"""Rules of the workflow in plain words, and their share of a run's time."""

import re

STEPS = {
    "merged_config": "write the configuration",
    "phantom": "simulate collections",
    "harmonize": "read a collection",
    "split": "split cases into training, validation and test",
    "check": "check that there are enough images",
    "autoencoder": "train the autoencoder",
    "pretrain": "pretrain the generator",
    "finetune": "fine-tune the generator",
    "distill": "distil the generator",
    "mask_prior": "fit the mask prior",
    "sampled_masks": "sample masks",
    "mask_realism": "compare sampled with real masks",
    "shard": "generate images",
    "filter_thresholds": "calibrate the quality filter",
    "filter": "filter images",
    "replacements": "plan replacements of rejected images",
    "replacement_shard": "generate replacements",
    "corpus_list": "list the corpus",
    "corpus_card": "describe the corpus",
    "segment": "train a segmenter",
    "classify": "train a classifier",
    "evaluate": "evaluate the corpus",
    "gain": "compare the arms' Dice",
    "auc": "compare the classifiers' AUC",
    "audit": "audit the test set's isolation",
    "report": "write the report",
    "all_folds": "collect the folds",
    "gain_over_folds": "compare the arms' Dice over all folds",
}

# Seconds of a job, measured with config/busi_cpu.yaml (docs/results/whole_chain.md). Only their
# ratios are used, so that a run is shown as half done after about half of its time.
EXPECTED_S = {
    "autoencoder": 400,
    "pretrain": 700,
    "finetune": 250,
    "distill": 250,
    "segment": 110,
    "classify": 110,
    "shard": 33,
    "replacement_shard": 33,
    "evaluate": 25,
    "harmonize": 20,
    "report": 15,
}
_EXPECTED_OF_OTHERS_S = 3


def expected_s(rule: str) -> int:
    """Expected seconds of a job of a rule, or of a rule of one fold."""
    return EXPECTED_S.get(re.sub(r"^fold\d+_", "", rule), _EXPECTED_OF_OTHERS_S)


def step_name(rule: str, wildcards: dict[str, str]) -> str:
    """A job in words: ``fine-tune the generator (labels 25)``."""
    fold, rule = re.fullmatch(r"(?:fold(\d+)_)?(.+)", rule).groups()
    details = [f"{name} {value}" for name, value in ({"fold": fold} | wildcards).items() if value]
    name = STEPS.get(rule, rule.replace("_", " "))
    return f"{name} ({', '.join(details)})" if details else name
