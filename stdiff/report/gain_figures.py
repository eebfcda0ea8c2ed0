"""The gain of every arm, and Dice against the number of real cases."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from stdiff.report.canvas import (
    MARKERS,
    NEUTRAL,
    Panels,
    arm_colour,
    arms_in_order,
    arms_legend,
    draw_arm,
    mean_and_error,
    panel,
    ticks,
    write_panels,
)
from stdiff.table.label_budget import LabelBudget

_ROW_INCHES = 0.3
_POINT = ["segmenter", "arm", "training_real", "dice_mean", "dice_low", "dice_high"]


def forest_plot(result: dict[str, Any], out: Path) -> Panels | None:
    """Gain of every segmenter, label budget and arm with its 95 % interval; a plot a collection.

    A row's grey bar spans the gains too small to detect with its number of cases.

    Args:
        result: The parsed JSON of :func:`stdiff.evaluation.gain.evaluate_gain`.
        out: Start of the paths of the SVG files.

    Returns:
        None where there is no gain to draw.
    """
    if not result["gains"]:
        return None
    table = pd.DataFrame(result["gains"])
    names = ["segmenter", "labels", "arm"]
    table = table.sort_values(names, key=_in_table_order, kind="stable")
    rows = table[names].drop_duplicates().reset_index(drop=True)
    shown = names if rows["segmenter"].nunique() > 1 else names[1:]
    labels = [", ".join(row) for row in rows[shown].itertuples(index=False)]
    arms = arms_in_order(result)
    plots = []
    collections = sorted(table.groupby("collection", sort=False), key=lambda g: g[0] != "pooled")
    for collection, gains in collections:
        at = rows.reset_index().merge(gains, on=names)
        axes = panel(
            f"{collection}\n{int(at['cases'].iloc[0])} cases",
            height_in=1.3 + _ROW_INCHES * len(rows),
        )
        smallest = at.reindex(columns=["minimum_detectable_effect"])
        smallest = smallest.to_numpy(float, na_value=np.nan)[:, 0]
        axes.barh(at["index"], 2 * smallest, left=-smallest, height=0.8, color=NEUTRAL, alpha=0.25)
        axes.axvline(0, color=NEUTRAL, lw=1)
        mean, error = mean_and_error(at, "gain")
        for i, row in enumerate(at.itertuples()):
            number = arms.index(row.arm)
            look = {"fmt": MARKERS[number % len(MARKERS)], "color": arm_colour(number)}
            axes.errorbar(
                mean[[i]], [row.index], xerr=error[:, [i]], capsize=3, ms=5, zorder=3, **look
            )
        axes.set_xlabel(f"Dice minus that of {result['baseline_arm']}")
        axes.locator_params(axis="x", nbins=4)
        axes.use_sticky_edges = False  # else the margin is cut at the bars' left ends
        axes.margins(x=0.06)
        axes.set_yticks(range(len(rows)), labels)
        axes.set_ylim(len(rows) - 0.4, -0.6)
        plots.append(axes)
    return write_panels(plots, out, arms_legend(arms)[1:])


def learning_curves(result: dict[str, Any], out: Path) -> Panels | None:
    """Dice against the number of real labelled cases; a line an arm, a plot a segmenter.

    Args:
        result: The parsed JSON of :func:`stdiff.evaluation.gain.evaluate_gain`.
        out: Start of the paths of the SVG files.

    Returns:
        None where there are no two numbers of cases to draw a line between.
    """
    table = pd.DataFrame(result.get("learning_curve", []), columns=_POINT)
    if table["training_real"].nunique() < 2:
        return None
    arms = arms_in_order(result)
    plots = []
    for segmenter, points in table.groupby("segmenter"):
        axes = panel(segmenter, height_in=3)
        for number, arm in enumerate(arms):
            line = points[points["arm"] == arm].sort_values("training_real")
            # Shifted sideways so that intervals do not cover each other.
            shift = 1.03 ** (number - (len(arms) - 1) / 2)
            draw_arm(axes, line["training_real"].to_numpy(float) * shift, line, number, "-")
        axes.set_xscale("log")
        ticks(axes, sorted(set(points["training_real"])))
        axes.grid(axis="y", alpha=0.3)
        axes.set_xlabel("real labelled cases")
        axes.set_ylabel("Dice, all collections")
        plots.append(axes)
    return write_panels(plots, out, arms_legend(arms))


def _in_table_order(column: pd.Series) -> pd.Series:
    return column.map(LabelBudget.parse) if column.name == "labels" else column
