"""Plots of trainings and of Dice by arm."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from stdiff.report.canvas import (
    NEUTRAL,
    TEXT_PT,
    Panels,
    arms_in_order,
    arms_legend,
    draw_arm,
    panel,
    write_panels,
)
from stdiff.runtime.files import InputError
from stdiff.table.label_budget import LabelBudget
from stdiff.training.validation import best_of, better_generator


def training_curves(logs: dict[str, Path], watched: dict[str, Path], out: Path) -> Panels:
    """Loss and validation scores against images seen, one plot a training.

    Args:
        logs: Title -> JSONL log of :func:`stdiff.training.loop.train`.
        watched: Title -> log of :mod:`stdiff.training.validation`.
        out: Start of the paths of the SVG files.

    Raises:
        InputError: a log has no entry.
    """
    plots = [_loss(title, _entries(log)) for title, log in logs.items()]
    plots += [_validation(title, _entries(log)) for title, log in watched.items()]
    return write_panels(plots, out)


def _entries(log: Path) -> list[dict[str, Any]]:
    entries = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
    if not entries:
        raise InputError(f"{log}: has no entry; rerun the training")
    return entries


def _loss(title: str, entries: list[dict[str, Any]]) -> Axes:
    images, losses = ([entry[key] for entry in entries] for key in ("images", "loss"))
    axes = panel(f"{title}:\n{losses[-1]:.3g} at the end")
    # Without markers, the single entry of a short training would be invisible.
    axes.plot(images, losses, color="black", marker="o" if len(images) < 30 else None, ms=3)
    axes.set_ylim(min(0.0, *losses), 1.05 * max(losses))
    axes.set_ylabel("loss")
    _images_seen(axes)
    return axes


def _validation(title: str, entries: list[dict[str, Any]]) -> Axes:
    """KID (left axis) and mask Dice (right axis) on validation masks; a line at the best."""
    images = [entry["images"] for entry in entries]
    chosen = best_of(entries, better_generator)["images"]
    axes = panel(f"{title}:\nused are the weights at {chosen:,}")
    right = axes.twinx()
    right.tick_params(labelsize=TEXT_PT)
    for side, key, name, look in (
        (axes, "kid", "KID (solid)", {"color": "black", "marker": "o"}),
        (right, "mask_dice", "mask Dice (dashed)", {"color": NEUTRAL, "marker": "s", "ls": "--"}),
    ):
        values = [entry[key] for entry in entries]
        side.plot(images, values, ms=4, **look)
        side.set_ylabel(name, fontsize=TEXT_PT)
        side.set_ylim(min(0.0, *values), 1.08 * max(*values, 0.01))
    right.spines["top"].set_visible(False)
    axes.axvline(chosen, color=NEUTRAL, linestyle=":", linewidth=1)
    _images_seen(axes)
    return axes


def _images_seen(axes: Axes) -> None:
    axes.set_xlim(left=0)
    axes.set_xlabel("images seen")
    axes.xaxis.set_major_locator(MaxNLocator(4))


def dice_by_arm(result: dict[str, Any], out: Path) -> Panels:
    """Mean Dice with its 95 % interval by budget and arm; a plot per segmenter and collection.

    Args:
        result: The parsed JSON of :func:`stdiff.evaluation.gain.evaluate_gain`.
        out: Start of the paths of the SVG files.
    """
    table = pd.DataFrame(result["by_arm"])
    arms = arms_in_order(result)
    budgets = sorted(set(table["labels"]), key=LabelBudget.parse)
    ends = table[["dice_mean", "dice_low", "dice_high"]].astype(float)
    plots = []
    for (segmenter, collection), rows in table.groupby(["segmenter", "collection"], sort=False):
        counts = rows.iloc[0]
        axes = panel(
            f"{collection}, {segmenter}\n{counts['cases']} cases, {counts['groups']} groups"
        )
        axes.grid(axis="y", alpha=0.3)
        for number, arm in enumerate(arms):
            of_arm = rows[rows["arm"] == arm]
            # Shifted sideways so that arms do not cover each other.
            shift = 0.16 * (number - (len(arms) - 1) / 2)
            x = [budgets.index(labels) + shift for labels in of_arm["labels"]]
            draw_arm(axes, x, of_arm, number)
        axes.set_xticks(range(len(budgets)), budgets)
        axes.set_xlim(-0.5, len(budgets) - 0.5)
        # One scale in all plots, so that they can be compared.
        axes.set_ylim(max(0, ends.min(axis=None) - 0.03), min(1, ends.max(axis=None) + 0.03))
        axes.set_xlabel("labels")
        axes.set_ylabel("Dice")
        plots.append(axes)
    return write_panels(plots, out, arms_legend(arms))
