"""Accepted images of a corpus, and the reasons of the rejected ones."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from stdiff.filtering.scores import REJECTED
from stdiff.report.canvas import COLOURS, embedded, write_figure
from stdiff.report.tables import records_table
from stdiff.runtime.files import read_json
from stdiff.table.accepted import FilterCount, count_filtered
from stdiff.table.cases import read_cases

_LABELS = {
    "mask_dice": "mask Dice",
    "terms_met": "terms met, share",
    "embedding_distance": "embedding distance",
    "correlation": "correlation",
    "saturated_fraction": "white pixels, share",
    "contrast_grey": "contrast, grey levels",
    "seam": "seam, ratio of slopes",
}
_BINS, _PANELS_IN_A_ROW = 40, 4

# By score: real held-out images, images made.
_Values = dict[str, tuple[np.ndarray, np.ndarray]]


def filter_contents(
    thresholds: Path, shards: Sequence[Path], figure: Path
) -> dict[str, Any] | None:
    """The page's part on one corpus: counts, a table by reason, and a picture of the scores.

    Args:
        thresholds: as `stdiff filter calibrate` writes them.
        shards: of one corpus, as `stdiff filter apply` writes them.
        figure: PNG to write.

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
    _draw(values, found["thresholds"], figure)
    return {
        "made": count.made,
        "accepted": count.accepted,
        "held_out": found["held_out_images"],
        "rejected_held_out": found["rejected_held_out"],
        "worst": [_LABELS[name] for name in REJECTED if found["thresholds"][name]["extreme"]],
        "reasons": records_table(_reasons(values, found["thresholds"], count)),
        "figure": embedded(figure),
    }


def _known(scores: Any) -> np.ndarray:
    return np.array([score for score in scores if score is not None], dtype=float)


def _reasons(
    values: _Values, thresholds: dict[str, Any], count: FilterCount
) -> list[dict[str, Any]]:
    """One record a score: its threshold, and what it rejects of real and of generated images."""
    records = []
    for name, (real, made) in values.items():
        limit = thresholds[name]
        off = limit["threshold"] is None
        rejected = count.rejected_for.get(name, 0)
        records.append(
            {
                "reason": _LABELS[name],
                "rejected": "never" if off else f"{limit['rejected']} {limit['threshold']:.4g}",
                "held-out images": None if off else limit["rejected_held_out"],
                "generated images": None if off else rejected / count.made,
                "images": rejected,
                "median, held out": float(np.median(real)) if real.size else None,
                "median, generated": float(np.median(made)) if made.size else None,
            }
        )
    return records


def _draw(values: _Values, thresholds: dict[str, Any], out: Path) -> None:
    """Histograms of each score that could be measured; the rejected side is shaded."""
    shown = [name for name, (_, made) in values.items() if made.size]
    rows = max(1, -(-len(shown) // _PANELS_IN_A_ROW))
    figure = Figure(figsize=(13, 2.6 * rows + 0.3), layout="constrained")
    panels = figure.subplots(rows, _PANELS_IN_A_ROW, squeeze=False).ravel()
    for axes, name in zip(panels, shown, strict=False):
        _draw_score(axes, *values[name])
        axes.set_xlabel(_LABELS[name], fontsize=9)
        if (threshold := thresholds[name]["threshold"]) is not None:
            _shade(axes, threshold, below=thresholds[name]["rejected"] == "below")
    for axes in panels[len(shown) :]:
        axes.remove()
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=3, frameon=False, fontsize=9)
    write_figure(figure, out)


def _draw_score(axes: Axes, real: np.ndarray, made: np.ndarray) -> None:
    both = np.concatenate([real, made])
    bins = np.linspace(both.min(), both.max() + 1e-6, _BINS + 1)
    for scores, label, look in (
        (made, "generated", {"histtype": "stepfilled", "color": COLOURS[1], "alpha": 0.45}),
        (real, "real, held out", {"histtype": "step", "color": COLOURS[0], "linewidth": 1.4}),
    ):
        if scores.size:
            share = np.full(scores.size, 1 / scores.size)
            axes.hist(scores, bins, weights=share, label=label, **look)
    axes.set_ylabel("share of images", fontsize=9)
    axes.tick_params(labelsize=8)
    axes.spines[["top", "right"]].set_visible(False)


def _shade(axes: Axes, threshold: float, *, below: bool) -> None:
    low, high = axes.get_xlim()
    axes.axvline(threshold, color="0.3", linestyle=":", linewidth=1)
    axes.axvspan(*((low, threshold) if below else (threshold, high)), color="0.5", alpha=0.15)
    axes.set_xlim(low, high)
