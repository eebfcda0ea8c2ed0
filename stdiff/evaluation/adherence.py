"""Does an image show the terms that its caption asked for?

Told by image analysis (:mod:`stdiff.birads.descriptors`), not by a network, and only of terms
that are seen in the image: shape and orientation stand in the mask, which was given. The same
analysis of real test images, against the terms of the case table, is the ceiling: those were
annotated by radiologists or told at native size, so it holds what the analysis itself misses.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd

from stdiff.birads.descriptors import derived_terms
from stdiff.config.segmentation import EvaluationConfig
from stdiff.downstream.images import LabelledImages
from stdiff.evaluation.statistics import drawn_means, group_bootstrap, known
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
    """How often the terms asked for are found, beside the same in real test images.

    Args:
        generated: Case rows with the columns of ``SEEN_TERMS``.
        generated_images: Their pixels.
        generated_groups: (N,) names; images of one mask are one group of the interval.
        test: Case rows with those columns and ``group_id``.
        test_images: Their pixels.
        settings: Draws of the bootstrap.
        seed: Of the run.

    Returns:
        A record by feature of ``images`` (with a term, and where the analysis could tell one),
        ``groups``, ``balanced_accuracy`` (mean over terms of the share of images that show the
        term asked for) with ``_low`` and ``_high`` (95 %), and ``chance``, one in as many terms
        as were asked for; ``ceiling``, such records of the test images; and ``by_term``, by term
        the ``images`` that asked for it and the share ``found``, with ``_low`` and ``_high``,
        beside the share ``found_in_real``. None where there is nothing to tell it from.
    """
    made = told_terms(generated, generated_images, generated_groups)
    real = told_terms(test, test_images, test["group_id"].to_numpy())

    def record(told: pd.DataFrame) -> dict[str, Any]:
        return balanced_record(
            told, settings.bootstrap_draws, generator(seed, "adherence interval")
        )

    terms = {}
    for name in SEEN_TERMS:
        real_shares = real[name].groupby("asked")["met"].mean()
        for asked, told in made[name].groupby("asked"):
            rng = generator(seed, "adherence interval")
            low, high = group_bootstrap(
                told["met"], told["group_id"], settings.bootstrap_draws, rng
            )
            terms[f"{name}: {asked}"] = {
                "images": len(told),
                "found": float(told["met"].mean()),
                "found_low": known(low),
                "found_high": known(high),
                "found_in_real": known(real_shares.get(asked, math.nan)),
            }
    return {
        **{name: record(made[name]) for name in SEEN_TERMS},
        "ceiling": {name: record(real[name]) for name in SEEN_TERMS},
        "by_term": terms,
    }


def told_terms(
    rows: pd.DataFrame, images: LabelledImages, groups: np.ndarray
) -> dict[str, pd.DataFrame]:
    """By feature, of the rows where it is asked for and seen: ``asked``, ``met``, ``group_id``.

    ``asked`` is the row's term and ``met`` 1 where image analysis finds the same, else 0.
    """
    pairs = zip(images.images_NHW, images.masks_NHW, strict=True)
    found = pd.DataFrame(
        [derived_terms(image, mask > 0) for image, mask in pairs], columns=list(SEEN_TERMS)
    )
    told = {}
    for name in SEEN_TERMS:
        asked = rows[name].to_numpy(dtype=object)
        table = pd.DataFrame({"asked": asked, "met": found[name] == asked, "group_id": groups})
        told[name] = table[pd.notna(asked) & found[name].notna()].astype({"met": float})
    return told


def balanced_accuracy(told: pd.DataFrame) -> float:
    """Mean over the terms asked for of the share of images that show them; NaN of no image."""
    return float(told.groupby("asked")["met"].mean().mean())


def balanced_record(told: pd.DataFrame, draws: int, rng: np.random.Generator) -> dict[str, Any]:
    """The record that :func:`evaluate_adherence` gives of one feature's rows."""
    terms = told["asked"].nunique()
    low, high = _interval(told, draws, rng)
    return {
        "images": len(told),
        "groups": told["group_id"].nunique(),
        "balanced_accuracy": known(balanced_accuracy(told)),
        "balanced_accuracy_low": known(low),
        "balanced_accuracy_high": known(high),
        "chance": 1 / terms if terms else None,
    }


def _interval(told: pd.DataFrame, draws: int, rng: np.random.Generator) -> tuple[float, float]:
    """95 % interval of the balanced accuracy when whole groups are drawn again."""
    if told["group_id"].nunique() < 2:
        return math.nan, math.nan
    terms, codes = np.unique(told["asked"].to_numpy(dtype=str), return_inverse=True)
    asked = codes[:, None] == np.arange(len(terms))
    met = asked * told["met"].to_numpy()[:, None]
    means = drawn_means(np.hstack([met, asked]), told["group_id"].to_numpy(), draws, rng)
    met_share, asked_share = np.split(means, 2, axis=1)
    # A draw may miss a rare term: it is the mean over the terms that it holds.
    drawn = asked_share > 0
    shares = np.divide(met_share, asked_share, out=np.zeros_like(met_share), where=drawn)
    low, high = np.percentile(shares.sum(axis=1) / drawn.sum(axis=1), [2.5, 97.5])
    return float(low), float(high)
