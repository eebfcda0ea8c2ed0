"""Figures of a run: training curves, Dice by arm, samples. Each is one PNG, written atomically.

Images are not selected: corpora are shown from their first row on, real cases evenly spaced over
their sorted ids.
"""

from __future__ import annotations

import json
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from stdiff.filtering.nearest import nearest_training
from stdiff.report.canvas import (
    COLOURS,
    MARKERS,
    arms_in_order,
    draw_arm,
    legend_below,
    show_grey,
    tiled,
    write_figure,
)
from stdiff.runtime.files import InputError, decode_png
from stdiff.table.cases import images_of, read_cases
from stdiff.table.cohort import Cohort
from stdiff.table.label_budget import LabelBudget
from stdiff.table.streaming import evenly_spread
from stdiff.training.validation import best_of, better_generator

_PANEL_IN = (3.6, 2.9)  # width and height of one small plot
_PANELS_IN_A_ROW = 3


def training_curves(logs: dict[str, Path], watched: dict[str, Path], out: Path) -> None:
    """Loss and validation scores against images seen, one panel a training.

    Args:
        logs: Panel title -> JSONL log of :func:`stdiff.training.loop.train`.
        watched: Panel title -> log of :mod:`stdiff.training.validation`.
        out: PNG to write.

    Raises:
        InputError: a log has no entry.
    """
    figure, panels = _panels(len(logs) + len(watched))
    for axes, (title, log) in zip(panels[len(logs) :], watched.items(), strict=True):
        _draw_watched(axes, title, _entries(log))
    for axes, (title, log) in zip(panels[: len(logs)], logs.items(), strict=True):
        entries = _entries(log)
        images, losses = ([entry[key] for entry in entries] for key in ("images", "loss"))
        # Without markers, the single entry of a short training would be invisible.
        axes.plot(images, losses, color=COLOURS[0], marker="o" if len(images) < 30 else None, ms=3)
        axes.set_title(f"{title}: {losses[-1]:.3g} at the end", fontsize=9)
        axes.set_xlim(left=0)
        axes.set_ylim(min(0.0, *losses), 1.05 * max(losses))
        axes.set_xlabel("images seen", fontsize=9)
        axes.set_ylabel("loss", fontsize=9)
        axes.xaxis.set_major_locator(MaxNLocator(5))
    write_figure(figure, out)


def _entries(log: Path) -> list[dict[str, Any]]:
    entries = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
    if not entries:
        raise InputError(f"{log}: has no entry; rerun the training")
    return entries


def _draw_watched(axes: Axes, title: str, entries: list[dict[str, Any]]) -> None:
    """KID (left axis) and mask Dice (right axis) on validation masks; a line at the best."""
    images = [entry["images"] for entry in entries]
    chosen = best_of(entries, better_generator)["images"]
    right = axes.twinx()
    for side, key, name, number in ((axes, "kid", "KID", 0), (right, "mask_dice", "mask Dice", 1)):
        values = [entry[key] for entry in entries]
        side.plot(images, values, color=COLOURS[number], marker=MARKERS[number], ms=4)
        side.set_ylabel(name, fontsize=9, color=COLOURS[number])
        side.tick_params(labelsize=8)
        side.set_ylim(min(0.0, *values), 1.08 * max(*values, 0.01))
    right.spines["top"].set_visible(False)
    axes.axvline(chosen, color="0.5", linestyle=":", linewidth=1)
    axes.set_title(f"{title}: used are the weights at {chosen:,}", fontsize=9)
    axes.set_xlim(left=0)
    axes.set_xlabel("images seen", fontsize=9)
    axes.xaxis.set_major_locator(MaxNLocator(5))


def dice_by_arm(gain_json: Path, out: Path) -> None:
    """Mean Dice with its 95 % interval by budget and arm; a panel per segmenter and collection.

    Args:
        gain_json: As :func:`stdiff.evaluation.gain.evaluate_gain` writes it.
        out: PNG to write.
    """
    result = json.loads(gain_json.read_text(encoding="utf-8"))
    table = pd.DataFrame(result["by_arm"])
    arms = arms_in_order(result, table)
    budgets = sorted(set(table["labels"]), key=LabelBudget.parse)
    panels_of = list(table.groupby(["segmenter", "collection"], sort=False))
    figure, panels = _panels(len(panels_of), sharey=True)
    for axes, ((segmenter, collection), rows) in zip(panels, panels_of, strict=True):
        for number, arm in enumerate(arms):
            of_arm = rows[rows["arm"] == arm]
            # Shifted sideways so that arms do not cover each other.
            shift = 0.16 * (number - (len(arms) - 1) / 2)
            x = [budgets.index(labels) + shift for labels in of_arm["labels"]]
            draw_arm(axes, x, of_arm, number)
        counts = rows.iloc[0]
        axes.set_title(
            f"{collection}, {segmenter}\n{counts['cases']} cases, {counts['groups']} groups",
            fontsize=9,
        )
        axes.set_xticks(range(len(budgets)), budgets)
        axes.set_xlim(-0.5, len(budgets) - 0.5)
        axes.set_xlabel("labels", fontsize=9)
        axes.set_ylabel("Dice", fontsize=9)
        axes.tick_params(labelleft=True)
    legend_below(figure, panels[0], len(arms))
    write_figure(figure, out)


def sample_grid(
    shards: Sequence[Path], cases: Sequence[Path], roles: pd.DataFrame, out: Path, rows: int = 8
) -> None:
    """The first images of a corpus: mask | generated | nearest training image, and the caption.

    Args:
        shards: Of one corpus, in order.
        cases: Case tables of the real images.
        roles: Rows of :func:`stdiff.table.roles.read_splits`.
        out: PNG to write.
        rows: Number of generated images.

    Raises:
        InputError: the corpus or the training set has no image, or a table cannot be read.
    """
    made = _first_rows(shards, rows)
    training = Cohort(read_cases(cases, ["case_id", "image"]), roles).training()
    training = training[training["image"].notna()].reset_index(drop=True)
    if training.empty:
        raise InputError("no training case has an image; rerun `stdiff split`")
    generated_NHW, training_NHW = images_of(made["image"]), images_of(training["image"])
    nearest, correlation = nearest_training(generated_NHW, training_NHW)

    figure = Figure(figsize=(8.6, 1.55 * len(made) + 0.4), layout="constrained")
    grid = figure.subplots(len(made), 4, squeeze=False, width_ratios=(1, 1, 1, 2.1))
    titles = ("mask", "generated (synthetic)", "nearest training image", "")
    for axes, title in zip(grid[0], titles, strict=True):
        axes.set_title(title, fontsize=9)
    for i, row in enumerate(made.to_dict("records")):
        show_grey(grid[i, 0], decode_png(row["mask"]["bytes"]))
        show_grey(grid[i, 1], generated_NHW[i])
        show_grey(grid[i, 2], training_NHW[nearest[i]])
        grid[i, 3].axis("off")
        grid[i, 3].text(0, 0.5, _caption(row, training, nearest[i], correlation[i]), **_TEXT)
    write_figure(figure, out)


_TEXT: dict[str, Any] = {"fontsize": 8, "va": "center", "ha": "left", "linespacing": 1.4}


def _caption(row: dict[str, Any], training: pd.DataFrame, nearest: int, correlation: float) -> str:
    caption = textwrap.fill(row["caption"] or "(empty caption)", 44)
    return (
        f"{caption}\n{row['case_id']}\n"
        f"nearest: {training['case_id'].iloc[nearest]}, correlation {correlation:.2f}"
    )


def real_and_generated(
    shards: Sequence[Path], cases: Sequence[Path], roles: pd.DataFrame, out: Path, side: int = 5
) -> None:
    """Contact sheet: ``side`` x ``side`` held-out test lesions beside as many generated images.

    Args:
        shards: Of one corpus, in order.
        cases: Case tables of the real images.
        roles: Rows of :func:`stdiff.table.roles.read_splits`.
        out: PNG to write.
        side: Images in a row and in a column.

    Raises:
        InputError: there is no test lesion, the corpus is empty, or a table cannot be read.
    """
    columns = ["case_id", "image", "mask", "lesion_count"]
    test = Cohort(read_cases(cases, columns), roles).lesions()
    test = test[test["image"].notna()]
    spaced = evenly_spread(len(test), side**2)
    made = _first_rows(shards, side**2)
    figure = Figure(figsize=(9, 4.7), layout="constrained")
    for axes, title, images_NHW in zip(
        figure.subplots(1, 2),
        ("test images, never shown to the generator", "generated (synthetic)"),
        (images_of(test["image"].iloc[spaced]), images_of(made["image"])),
        strict=True,
    ):
        show_grey(axes, tiled(images_NHW, side))
        axes.set_title(title, fontsize=10)
    write_figure(figure, out)


def _first_rows(shards: Sequence[Path], rows: int) -> pd.DataFrame:
    """The first rows of a corpus; further shards are not read."""
    parts: list[pd.DataFrame] = []
    for shard in shards:
        parts.append(read_cases(shard, ["case_id", "image", "mask", "caption"]))
        if sum(map(len, parts)) >= rows:
            break
    if not sum(map(len, parts)):
        raise InputError("the corpus has no image; give the shards that `stdiff generate` wrote")
    return pd.concat(parts, ignore_index=True).head(rows)


def _panels(count: int, *, sharey: bool = False) -> tuple[Figure, list[Axes]]:
    """``count`` small plots, row by row."""
    rows = -(-count // _PANELS_IN_A_ROW)
    columns = -(-count // rows)
    figure = Figure(figsize=(_PANEL_IN[0] * columns, _PANEL_IN[1] * rows), layout="constrained")
    grid = list(figure.subplots(rows, columns, squeeze=False, sharey=sharey).flat)
    for unused in grid[count:]:
        unused.remove()
    for axes in grid[:count]:
        axes.grid(axis="y", alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(labelsize=8)
    return figure, grid[:count]
