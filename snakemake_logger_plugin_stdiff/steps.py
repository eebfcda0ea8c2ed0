"""Rules of the workflow in plain words."""

import re

STEPS = {
    "merged_config": "write the configuration",
    "phantom": "simulate collections",
    "harmonize": "read a collection",
    "split": "split cases into training, validation and test",
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


def step_name(rule: str, wildcards: dict[str, str]) -> str:
    """A job in words: ``fine-tune the generator (labels 25)``."""
    fold, rule = re.fullmatch(r"(?:fold(\d+)_)?(.+)", rule).groups()
    details = [f"{name} {value}" for name, value in ({"fold": fold} | wildcards).items() if value]
    name = STEPS.get(rule, rule.replace("_", " "))
    return f"{name} ({', '.join(details)})" if details else name
