"""The quality filter: scores of generated images, thresholds from real ones, and the verdicts.

An image is rejected if a score lies beyond its threshold, a quantile of real held-out images. The
row stays in its shard; readers find scores, verdict and reasons in the column ``filter``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from stdiff.birads.descriptors import derived_terms
from stdiff.config.generator import GateConfig
from stdiff.filtering.sanity import contrast_grey, saturated_fraction, seam
from stdiff.table.cases import images_of

# Score → the side of its threshold on which an image is rejected.
REJECTED: dict[str, Literal["below", "above"]] = {
    "mask_dice": "below",
    "terms_met": "below",
    "embedding_distance": "below",
    "correlation": "above",
    "saturated_fraction": "above",
    "contrast_grey": "below",
    "seam": "above",
}
# What image analysis finds in the image. Shape and orientation come from the mask, which was given;
# whether the lesion has that outline is what mask_dice measures.
SEEN_TERMS = ("echo_pattern", "posterior_features")

Score = float | None
# case_ids of the nearest training images, and the distances to (or correlations with) them.
Nearest = tuple[Sequence[str], np.ndarray]


@dataclass(frozen=True)
class Measures:
    """What scores are measured with; each function takes (N, H, W) uint8 images.

    Attributes:
        dice: of images and their 0/255 masks → (N,) Dice, NaN where it is not defined.
        by_embedding: nearest training images, and distances to them.
        by_correlation: most similar training images, and correlations with them.
        decoupling: the gate inside the model that made the images, at whose edge seams are sought.
    """

    dice: Callable[[np.ndarray, np.ndarray], np.ndarray]
    by_embedding: Callable[[np.ndarray], Nearest]
    by_correlation: Callable[[np.ndarray], Nearest]
    decoupling: GateConfig


@dataclass(frozen=True)
class Threshold:
    """Where a score rejects, and how it was found.

    Attributes:
        rejected: the side on which images are rejected.
        tail: share of real images that may lie there; None = the score rejects nothing.
        held_out: real images whose score could be measured.
        threshold: images beyond it are rejected; None where tail is None or held_out is 0.
        extreme: held_out is less than 1 / tail, so that the threshold is the worst real image.
        rejected_held_out: share of the real images beyond the threshold.
    """

    rejected: Literal["below", "above"]
    tail: float | None
    held_out: int
    threshold: Score = None
    extreme: bool = False
    rejected_held_out: float = 0.0

    def rejects(self, score: Score) -> bool:
        """Whether an image of this score is rejected; one that cannot be measured is not."""
        if score is None or self.threshold is None:
            return False
        return score < self.threshold if self.rejected == "below" else score > self.threshold


def scores_of(rows: Sequence[Mapping[str, Any]], measures: Measures) -> list[dict[str, Any]]:
    """The score fields of ``filter`` of case rows with image and mask; rows are independent.

    Scores are rounded to float32, as the table stores them; one that cannot be measured is None.
    """
    if not rows:
        return []
    images_NHW = images_of(row["image"] for row in rows)
    masks_NHW = images_of(row["mask"] for row in rows)
    dice = measures.dice(images_NHW, masks_NHW)
    embedded, distance = measures.by_embedding(images_NHW)
    correlated, correlation = measures.by_correlation(images_NHW)
    return [
        {
            "mask_dice": _stored(dice[i]),
            "terms_met": _stored(terms_met(row, images_NHW[i], masks_NHW[i])),
            # An image that keeps a training image's background is a copy of it there, on purpose.
            "embedding_distance": None if row["background"] else _stored(distance[i]),
            "correlation": None if row["background"] else _stored(correlation[i]),
            "saturated_fraction": _stored(saturated_fraction(images_NHW[i])),
            "contrast_grey": _stored(contrast_grey(images_NHW[i])),
            "seam": _stored(seam(images_NHW[i], masks_NHW[i], measures.decoupling)),
            "nearest_by_embedding": str(embedded[i]),
            "nearest_by_correlation": str(correlated[i]),
        }
        for i, row in enumerate(rows)
    ]


def terms_met(row: Mapping[str, Any], image_HW: np.ndarray, mask_HW: np.ndarray) -> Score:
    """Share of the row's :data:`SEEN_TERMS` that image analysis finds, of those it can tell."""
    found = derived_terms(image_HW, mask_HW > 0)
    conditional = [name for name in SEEN_TERMS if isinstance(row[name], str) and name in found]
    if not conditional:
        return None
    return sum(row[name] == found[name] for name in conditional) / len(conditional)


def calibrate(
    held_out: Sequence[Mapping[str, Any]], tails: Mapping[str, float | None]
) -> dict[str, Threshold]:
    """Thresholds that reject at most the given share of real images each.

    Args:
        held_out: :func:`scores_of` real images that no training has seen.
        tails: score → share in (0, 0.5), or None.
    """
    return {
        name: _threshold(rejected, tails[name], [row[name] for row in held_out])
        for name, rejected in REJECTED.items()
    }


def _threshold(
    rejected: Literal["below", "above"], tail: float | None, scores: Sequence[Score]
) -> Threshold:
    values = sorted((s for s in scores if s is not None), reverse=rejected == "above")
    if tail is None or not values:
        return Threshold(rejected, tail, len(values))
    # At most so many real images are beyond the threshold, which is a real image's own score. (The
    # small addition is for shares such as 0.29 of 100, which is 28.999... in binary.)
    beyond = math.floor(tail * len(values) + 1e-9)
    found = Threshold(rejected, tail, len(values), values[beyond], extreme=beyond == 0)
    share = sum(map(found.rejects, values)) / len(values)
    return Threshold(**{**vars(found), "rejected_held_out": share})


def judged(scores: Mapping[str, Any], thresholds: Mapping[str, Threshold]) -> dict[str, Any]:
    """A ``filter`` cell: the scores, the verdict, and the scores that are reasons to reject."""
    reasons = [name for name in REJECTED if thresholds[name].rejects(scores[name])]
    return {**scores, "accepted": not reasons, "reasons": reasons}


def _stored(score: Score) -> Score:
    """The score as float32 holds it; None in place of NaN."""
    if score is None or math.isnan(score):
        return None
    return float(np.float32(score))
