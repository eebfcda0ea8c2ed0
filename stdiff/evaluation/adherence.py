"""Do generated images show the BI-RADS terms of their caption?

Image analysis (:mod:`stdiff.birads.descriptors`), not a network, derives the terms from image and
mask. Only terms visible in the image are compared; shape and orientation are given by the mask. The
same comparison on real test images is the ceiling: their terms were annotated by radiologists or
derived at native size, so it includes the errors of the image analysis.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd

from stdiff.birads.descriptors import derived_terms
from stdiff.config.evaluation import EvaluationConfig
from stdiff.downstream.images import LabelledImages
from stdiff.evaluation.statistics import (
    bootstrap_means,
    group_bootstrap,
    none_if_nan,
    percentile_interval,
)
from stdiff.filtering.scores import SEEN_TERMS
from stdiff.runtime.randomness import generator


def evaluate_adherence(
    generated: pd.DataFrame,
    generated_images: LabelledImages,
    generated_groups: np.ndarray,
    test: pd.DataFrame,
    test_images: LabelledImages,
    *,
    settings: EvaluationConfig,
    seed: int,
) -> dict[str, Any]:
    """Agreement of conditional and derived terms, on generated and on real test images.

    Args:
        generated: Case rows with the columns of ``SEEN_TERMS``.
        generated_images: Images and masks of these rows.
        generated_groups: Group names (N,); images of one mask form one group of the bootstrap.
        test: Case rows with those columns and ``group_id``.
        test_images: Images and masks of these rows.
        settings: Number of bootstrap draws.
        seed: The run's seed.

    Returns:
        By descriptor a record, see :func:`balanced_record`; ``ceiling``, the same records of the
        test images; and ``by_term``, by conditional term the number of ``images``, the share
        ``found`` with ``_low`` and ``_high``, and the share ``found_in_real``. None where there
        are no images to compute a value from.
    """
    synthetic = derived_agreement(generated, generated_images, generated_groups)
    real = derived_agreement(test, test_images, test["group_id"].to_numpy())
    draws = settings.bootstrap_draws

    def rng() -> np.random.Generator:
        return generator(seed, "adherence interval")

    terms = {}
    for name in SEEN_TERMS:
        real_shares = real[name].groupby("condition")["met"].mean()
        for term, rows in synthetic[name].groupby("condition"):
            low, high = group_bootstrap(rows["met"], rows["group_id"], draws, rng())
            terms[f"{name}: {term}"] = {
                "images": len(rows),
                "found": float(rows["met"].mean()),
                "found_low": none_if_nan(low),
                "found_high": none_if_nan(high),
                "found_in_real": none_if_nan(real_shares.get(term, math.nan)),
            }
    return {
        **{name: balanced_record(synthetic[name], draws, rng()) for name in SEEN_TERMS},
        "ceiling": {name: balanced_record(real[name], draws, rng()) for name in SEEN_TERMS},
        "by_term": terms,
    }


def derived_agreement(
    rows: pd.DataFrame, images: LabelledImages, groups: np.ndarray
) -> dict[str, pd.DataFrame]:
    """By descriptor, the rows with a conditional and a derived term.

    Columns are ``condition``, the conditional term; ``met``, 1 if the derived term is the same and
    0 otherwise; and ``group_id``.
    """
    pairs = zip(images.images_NHW, images.masks_NHW, strict=True)
    derived = pd.DataFrame(
        [derived_terms(image, mask > 0) for image, mask in pairs], columns=list(SEEN_TERMS)
    )
    agreement = {}
    for name in SEEN_TERMS:
        condition = rows[name].to_numpy(dtype=object)
        met = derived[name] == condition
        table = pd.DataFrame({"condition": condition, "met": met, "group_id": groups})
        comparable = pd.notna(condition) & derived[name].notna()
        agreement[name] = table[comparable].astype({"met": float})
    return agreement


def balanced_accuracy(agreement: pd.DataFrame) -> float:
    """Mean over the conditional terms of the share of images that show them; NaN for no image."""
    return float(agreement.groupby("condition")["met"].mean().mean())


def balanced_record(
    agreement: pd.DataFrame, draws: int, rng: np.random.Generator
) -> dict[str, Any]:
    """Balanced accuracy of one descriptor with its 95 % bootstrap interval.

    Keys: ``images``, ``groups``, ``balanced_accuracy`` with ``_low`` and ``_high``, and ``chance``,
    1 / number of conditional terms.
    """
    terms = agreement["condition"].nunique()
    low, high = _balanced_interval(agreement, draws, rng)
    return {
        "images": len(agreement),
        "groups": agreement["group_id"].nunique(),
        "balanced_accuracy": none_if_nan(balanced_accuracy(agreement)),
        "balanced_accuracy_low": none_if_nan(low),
        "balanced_accuracy_high": none_if_nan(high),
        "chance": 1 / terms if terms else None,
    }


def _balanced_interval(
    agreement: pd.DataFrame, draws: int, rng: np.random.Generator
) -> tuple[float, float]:
    """95 % interval of the balanced accuracy, resampling whole groups."""
    if agreement["group_id"].nunique() < 2:
        return math.nan, math.nan
    terms, codes = np.unique(agreement["condition"].to_numpy(dtype=str), return_inverse=True)
    conditional = codes[:, None] == np.arange(len(terms))
    met = conditional * agreement["met"].to_numpy()[:, None]
    groups = agreement["group_id"].to_numpy()
    means = bootstrap_means(np.hstack([met, conditional]), groups, draws, rng)
    met_share, conditional_share = np.split(means, 2, axis=1)
    # A draw may miss a rare term: average over the terms that it contains.
    present = conditional_share > 0
    shares = np.divide(met_share, conditional_share, out=np.zeros_like(met_share), where=present)
    return percentile_interval(shares.sum(axis=1) / present.sum(axis=1))
