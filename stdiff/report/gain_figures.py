"""The gain of every arm, and Dice against the number of real cases."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from stdiff.report.canvas import (
    COLOURS,
    arms_in_order,
    draw_arm,
    legend_below,
    mean_and_error,
    write_figure,
)
from stdiff.table.label_budget import LabelBudget

_ROW_INCHES = 0.3
_GREY = "0.88"
_POINT = ["segmenter", "arm", "training_real", "dice_mean", "dice_low", "dice_high"]


def forest_plot(gain_json: Path, out: Path) -> bool:
    """Gain of every segmenter, label budget and arm with its 95 % interval; a panel a collection.

    A row's grey bar spans the gains too small to detect with its number of cases.

    Args:
        gain_json: As :func:`stdiff.evaluation.gain.evaluate_gain` writes it.
        out: PNG to write.

    Returns:
        Whether there was a gain to draw.
    """
    result = json.loads(gain_json.read_text(encoding="utf-8"))
    if not result["gains"]:
        return False
    table = pd.DataFrame(result["gains"])
    names = ["segmenter", "labels", "arm"]
    table = table.sort_values(names, key=_in_table_order, kind="stable")
    rows = table[names].drop_duplicates().reset_index(drop=True)
    panels_of = list(table.groupby("collection", sort=False))
    panels_of.sort(key=lambda item: item[0] != "pooled")
    figure = Figure(
        figsize=(3.2 + 2.6 * len(panels_of), 1.3 + _ROW_INCHES * len(rows)), layout="constrained"
    )
    axes_of = figure.subplots(1, len(panels_of), squeeze=False, sharey=True)[0]
    for axes, (collection, gains) in zip(axes_of, panels_of, strict=True):
        at = rows.reset_index().merge(gains, on=names)
        y = at["index"].to_numpy()
        smallest = at.reindex(columns=["minimum_detectable_effect"])
        smallest = smallest.to_numpy(float, na_value=np.nan)[:, 0]
        mean, error = mean_and_error(at, "gain")
        axes.barh(y, 2 * smallest, left=-smallest, height=0.8, color=_GREY, zorder=1)
        axes.axvline(0, color="0.4", lw=1, zorder=2)
        axes.errorbar(mean, y, xerr=error, fmt="s", color=COLOURS[0], capsize=3, ms=5, zorder=3)
        cases = f"{int(at['cases'].iloc[0])} cases"
        axes.set_title(f"{collection}\n{cases}", fontsize=9)
        axes.set_xlabel(f"Dice minus that of {result['baseline_arm']}", fontsize=9)
        axes.tick_params(labelsize=8)
        axes.use_sticky_edges = False  # else the margin is cut at the bars' left ends
        axes.margins(x=0.06)
    labels = [f"{r.segmenter}, {r.labels}, {r.arm}" for r in rows.itertuples()]
    axes_of[0].set_yticks(range(len(rows)), labels, fontsize=8)
    axes_of[0].set_ylim(len(rows) - 0.4, -0.6)
    write_figure(figure, out)
    return True


def learning_curves(gain_json: Path, out: Path) -> bool:
    """Dice against the number of real labelled cases; a line an arm, a panel a segmenter.

    Args:
        gain_json: As :func:`stdiff.evaluation.gain.evaluate_gain` writes it.
        out: PNG to write.

    Returns:
        Whether there were two numbers of cases to draw a line between.
    """
    result = json.loads(gain_json.read_text(encoding="utf-8"))
    table = pd.DataFrame(result.get("learning_curve", []), columns=_POINT)
    if table["training_real"].nunique() < 2:
        return False
    arms = arms_in_order(result, table)
    segmenters = list(table.groupby("segmenter"))
    figure = Figure(figsize=(1.2 + 3.4 * len(segmenters), 3.6), layout="constrained")
    axes_of = figure.subplots(1, len(segmenters), squeeze=False, sharey=True)[0]
    for axes, (segmenter, points) in zip(axes_of, segmenters, strict=True):
        for number, arm in enumerate(arms):
            line = points[points["arm"] == arm].sort_values("training_real")
            # Shifted sideways so that intervals do not cover each other.
            shift = 1.03 ** (number - (len(arms) - 1) / 2)
            draw_arm(axes, line["training_real"].to_numpy(float) * shift, line, number, "-")
        axes.set_xscale("log")
        ticks = sorted(set(points["training_real"]))
        axes.set_xticks(ticks, [f"{tick}" for tick in ticks], fontsize=8)
        axes.minorticks_off()
        axes.grid(axis="y", alpha=0.3)
        axes.set_title(segmenter, fontsize=9)
        axes.set_xlabel("real labelled cases", fontsize=9)
    axes_of[0].set_ylabel("Dice, all collections", fontsize=9)
    legend_below(figure, axes_of[0], min(4, len(arms)))
    write_figure(figure, out)
    return True


def _in_table_order(column: pd.Series) -> pd.Series:
    return column.map(LabelBudget.parse) if column.name == "labels" else column
