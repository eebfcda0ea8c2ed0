"""The gain of every arm, and Dice against the number of real cases."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from stdiff.report.canvas import COLOURS, MARKERS, write_figure
from stdiff.table.label_budget import LabelBudget

_ROW_INCHES = 0.3
_GREY = "0.88"
_POINT = ["segmenter", "arm", "training_real", "dice_mean", "dice_low", "dice_high"]


def forest_plot(gain_json: Path, out: Path) -> bool:
    """Gain of every segmenter, label budget and arm with its 95 % interval; a panel a collection.

    The grey bar of a row reaches as far as the smallest gain that its cases would have shown.

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
        numbers = ["gain_mean", "gain_low", "gain_high", "minimum_detectable_effect"]
        mean, low, high, smallest = at.reindex(columns=numbers).to_numpy(float, na_value=np.nan).T
        axes.barh(y, 2 * smallest, left=-smallest, height=0.8, color=_GREY, zorder=1)
        axes.axvline(0, color="0.4", lw=1, zorder=2)
        spread = [np.nan_to_num(mean - low), np.nan_to_num(high - mean)]
        axes.errorbar(mean, y, xerr=spread, fmt="s", color=COLOURS[0], capsize=3, ms=5, zorder=3)
        cases = f"{int(at['cases'].iloc[0])} cases"
        axes.set_title(f"{collection}\n{cases}", fontsize=9)
        axes.set_xlabel(f"Dice minus that of {result['baseline_arm']}", fontsize=9)
        axes.tick_params(labelsize=8)
        axes.use_sticky_edges = False  # bars would hold the frame to their left ends
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
    arms = sorted(set(table["arm"]), key=lambda arm: (arm != result["baseline_arm"], arm))
    segmenters = list(table.groupby("segmenter"))
    figure = Figure(figsize=(1.2 + 3.4 * len(segmenters), 3.6), layout="constrained")
    axes_of = figure.subplots(1, len(segmenters), squeeze=False, sharey=True)[0]
    for axes, (segmenter, points) in zip(axes_of, segmenters, strict=True):
        for number, arm in enumerate(arms):
            line = points[points["arm"] == arm].sort_values("training_real")
            real, mean, low, high = line[_POINT[2:]].to_numpy(float, na_value=np.nan).T
            # Moved sideways a little, so that intervals do not cover each other.
            axes.errorbar(
                real * 1.03 ** (number - (len(arms) - 1) / 2),
                mean,
                yerr=[np.nan_to_num(mean - low), np.nan_to_num(high - mean)],
                fmt=f"{MARKERS[number % len(MARKERS)]}-",
                color=COLOURS[number % len(COLOURS)],
                capsize=3,
                ms=5,
                lw=1,
                label=arm,
            )
        axes.set_xscale("log")
        ticks = sorted(set(points["training_real"]))
        axes.set_xticks(ticks, [f"{tick}" for tick in ticks], fontsize=8)
        axes.minorticks_off()
        axes.grid(axis="y", alpha=0.3)
        axes.set_title(segmenter, fontsize=9)
        axes.set_xlabel("real labelled cases", fontsize=9)
    axes_of[0].set_ylabel("Dice, all collections", fontsize=9)
    handles, labels = axes_of[0].get_legend_handles_labels()
    figure.legend(
        handles, labels, loc="outside lower center", ncols=min(4, len(arms)), frameon=False
    )
    write_figure(figure, out)
    return True


def _in_table_order(column: pd.Series) -> pd.Series:
    return column.map(LabelBudget.parse) if column.name == "labels" else column
