"""Do generated lesions follow the mask that they were conditioned on?

A segmenter trained on real images only predicts masks of generated images, which are compared with
the conditioning masks. Its Dice on real test images is the ceiling; a higher Dice on generated
images means easy, stereotyped lesions, not better images.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from torch import nn

from stdiff.config.evaluation import EvaluationConfig
from stdiff.downstream.images import LabelledImages
from stdiff.downstream.metrics import case_metrics
from stdiff.downstream.networks import segment
from stdiff.evaluation.statistics import group_bootstrap, interval_columns, none_if_nan
from stdiff.runtime.randomness import generator


def evaluate_control(
    network: nn.Module,
    generated: pd.DataFrame,
    generated_images: LabelledImages,
    test: pd.DataFrame,
    test_images: LabelledImages,
    *,
    settings: EvaluationConfig,
    seed: int,
) -> dict[str, Any]:
    """Mask Dice on generated images and its ceiling on real test images.

    Args:
        network: Segmenter trained on real training images only.
        generated: Case rows with ``mask_origin`` and ``pathology``; images of one real mask
            (``bank:<case_id>``) form one group of the bootstrap.
        generated_images: Images and conditioning masks of these rows.
        test: Case rows with ``group_id`` and ``pathology``.
        test_images: Images and masks of these rows.
        settings: Number of bootstrap draws.
        seed: The run's seed.

    Returns:
        ``mask_dice`` and ``ceiling``, each a record of ``images``, ``groups``, ``dice_mean``,
        ``dice_low``, ``dice_high`` and ``excluded_both_empty``; and ``by_mask_origin``,
        ``by_pathology`` and ``ceiling_by_pathology``, such records by value.
    """
    origins = mask_origins(generated)
    made = _dice(network, generated_images).assign(
        group_id=mask_groups(generated),
        mask_origin=[origin.partition(":")[0] for origin in origins],
        pathology=generated["pathology"].to_numpy(),
    )
    real = _dice(network, test_images).assign(
        group_id=test["group_id"].to_numpy(), pathology=test["pathology"].to_numpy()
    )

    def record(rows: pd.DataFrame) -> dict[str, Any]:
        return _mean_dice(rows, settings.bootstrap_draws, generator(seed, "mask Dice interval"))

    return {
        "mask_dice": record(made),
        "ceiling": record(real),
        "by_mask_origin": {name: record(rows) for name, rows in made.groupby("mask_origin")},
        "by_pathology": {name: record(rows) for name, rows in made.groupby("pathology")},
        "ceiling_by_pathology": {name: record(rows) for name, rows in real.groupby("pathology")},
    }


def mask_origins(generated: pd.DataFrame) -> np.ndarray:
    """Origin of each row's mask (N,); ``bank:<case_id>`` for a real mask, without its changes."""
    origins = generated["mask_origin"].fillna("unknown").to_numpy(dtype=str)
    # Changes of a real mask follow its case_id after a semicolon.
    return np.array([origin.partition(";")[0] for origin in origins], dtype=str)


def mask_groups(generated: pd.DataFrame) -> np.ndarray:
    """Group of each row (N,): images of one real mask form a group, others one group each."""
    origins = mask_origins(generated)
    return np.where(
        np.char.find(origins, ":") >= 0, origins, generated["case_id"].to_numpy(dtype=str)
    )


def _dice(network: nn.Module, images: LabelledImages) -> pd.DataFrame:
    return case_metrics(segment(network, images.images_NHW), images.masks_NHW)[["dice"]]


def _mean_dice(rows: pd.DataFrame, draws: int, rng: np.random.Generator) -> dict[str, Any]:
    counted = rows[rows["dice"].notna()]
    interval = group_bootstrap(counted["dice"], counted["group_id"], draws, rng)
    dice = interval_columns("dice", counted["dice"].mean(), interval)
    return {
        "images": len(counted),
        "groups": counted["group_id"].nunique(),
        # Null for a single group (no interval) or no image.
        **{name: none_if_nan(value) for name, value in dice.items()},
        "excluded_both_empty": len(rows) - len(counted),
    }
