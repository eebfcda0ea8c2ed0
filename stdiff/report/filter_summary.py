"""Accepted images of a corpus, and the reasons of the rejected ones."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from stdiff.filtering.scores import REJECTED
from stdiff.report.canvas import (
    GENERATED_COLOUR,
    NEUTRAL,
    REAL_COLOUR,
    Panels,
    panel,
    write_panels,
)
from stdiff.report.tables import records_table
from stdiff.runtime.files import read_json
from stdiff.table.accepted import FilterCount, count_filtered
from stdiff.table.cases import read_cases

_LABELS = {
    "mask_dice": "Dice with its mask",
    "terms_met": "share of the caption's terms found",
    "embedding_distance": "distance to the nearest training image",
    "correlation": "correlation with a training image",
    "saturated_fraction": "share of white pixels",
    "contrast_grey": "contrast, grey levels",
    "seam": "seam, ratio of slopes",
}
# What is wrong with a rejected image; {} is the threshold.
_REASONS = {
    "mask_dice": "The lesion is not where the mask is: Dice below {:.3f}.",
    "terms_met": "Less than {:.0%} of the caption's terms are found.",
    "embedding_distance": "Too near a training image: distance below {:.3g}.",
    "correlation": "Too much like a training image: correlation above {:.3f}.",
    "saturated_fraction": "Too many white pixels: more than {:.2%}.",
    "contrast_grey": "Too little contrast: below {:.3g} grey levels.",
    "seam": "A seam around the lesion: slope there above {:.3g} times that beside it.",
}
_BINS = 40

# By score: real held-out images, images made.
_Values = dict[str, tuple[np.ndarray, np.ndarray]]


def filter_contents(
    thresholds: Path, shards: Sequence[Path], figure: Path
) -> dict[str, Any] | None:
    """The page's part on one corpus: counts, a table by reason, and a picture of the scores.

    Args:
        thresholds: as `stdiff filter calibrate` writes them.
        shards: of one corpus, as `stdiff filter apply` writes them.
        figure: start of the paths of the SVG files.

    Returns:
        None where there are no thresholds or no judged image.

    Raises:
        InputError: a file that cannot be read.
    """
    if not thresholds.is_file() or not shards:
        return None
    found, cells = read_json(thresholds), list(read_cases(shards, ["filter"])["filter"])
    if not any(cell is not None for cell in cells):
        return None
    count = count_filtered(cells)
    judged = [cell for cell in cells if cell is not None]
    values: _Values = {
        name: (_known(found["held_out"][name]), _known(cell[name] for cell in judged))
        for name in REJECTED
    }
    return {
        "made": count.made,
        "accepted": count.accepted,
        "held_out": found["held_out_images"],
        "rejected_held_out": found["rejected_held_out"],
        "worst": [_LABELS[name] for name in REJECTED if found["thresholds"][name]["extreme"]],
        "reasons": records_table(_reasons(values, found["thresholds"], count)),
        "unused": [
            _LABELS[name] for name in REJECTED if found["thresholds"][name]["threshold"] is None
        ],
        "figure": _draw(values, found["thresholds"], figure),
    }


def _known(scores: Any) -> np.ndarray:
    return np.array([score for score in scores if score is not None], dtype=float)


def _reasons(
    values: _Values, thresholds: dict[str, Any], count: FilterCount
) -> list[dict[str, Any]]:
    """One record a reason: whom it rejects of the real and of the generated images."""
    return [
        {
            "reason": reason(name, thresholds[name]["threshold"]),
            "images rejected": count.rejected_for.get(name, 0),
            "share of generated": count.rejected_for.get(name, 0) / count.made,
            "share of held-out": thresholds[name]["rejected_held_out"],
            "median, generated": float(np.median(made)) if made.size else None,
            "median, held out": float(np.median(real)) if real.size else None,
        }
        for name, (real, made) in values.items()
        if thresholds[name]["threshold"] is not None
    ]


def reason(score: str, threshold: float) -> str:
    """Why an image beyond this threshold is rejected, as a sentence."""
    if score == "saturated_fraction" and threshold == 0:
        return "Any pixel is white: no held-out real image has one."
    return _REASONS[score].format(threshold)


def _draw(values: _Values, thresholds: dict[str, Any], out: Path) -> Panels:
    """A histogram of each score that could be measured; the rejected side is shaded."""
    plots = []
    for name, (real, made) in values.items():
        if made.size:
            axes = _histogram(_LABELS[name], real, made)
            if (threshold := thresholds[name]["threshold"]) is not None:
                _shade(axes, threshold, below=thresholds[name]["rejected"] == "below")
            plots.append(axes)
    legend = [("generated", GENERATED_COLOUR, "■"), ("real, held out", REAL_COLOUR, "□")]
    return write_panels(plots, out, legend)


def _histogram(label: str, real: np.ndarray, made: np.ndarray) -> Axes:
    axes = panel(label, height_in=2.2)
    both = np.concatenate([real, made])
    bins = np.linspace(both.min(), both.max() + 1e-6, _BINS + 1)
    for scores, look in (
        (made, {"histtype": "stepfilled", "color": GENERATED_COLOUR, "alpha": 0.5}),
        (real, {"histtype": "step", "color": REAL_COLOUR, "linewidth": 1.4}),
    ):
        if scores.size:
            axes.hist(scores, bins, weights=np.full(scores.size, 1 / scores.size), **look)
    axes.set_ylabel("share of images")
    axes.locator_params(axis="x", nbins=5)
    return axes


def _shade(axes: Axes, threshold: float, *, below: bool) -> None:
    low, high = axes.get_xlim()
    axes.axvline(threshold, color=NEUTRAL, linestyle=":", linewidth=1)
    axes.axvspan(*((low, threshold) if below else (threshold, high)), color=NEUTRAL, alpha=0.2)
    axes.set_xlim(low, high)
