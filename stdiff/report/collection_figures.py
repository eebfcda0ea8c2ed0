"""Figures of a collection: distributions, near-duplicates, files left out."""

from __future__ import annotations

import textwrap
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

from stdiff.birads.lexicon import BIRADS, PATHOLOGIES, VOCABULARY
from stdiff.datasets.pixels import read_picture
from stdiff.report.canvas import COLOURS, write_figure
from stdiff.runtime.files import InputError, decode_png
from stdiff.splitting.groups import area_fraction
from stdiff.table.streaming import evenly_spread, iterate_rows

_DESCRIPTORS = (
    *("shape", "orientation", "margin", "echo_pattern"),
    *("posterior_features", "calcifications"),
)
_PAIRS_SHOWN = 24
_FILES_SHOWN = 24
_TILES_IN_A_ROW = 6
_TILE_PX = 128
_OF_CLASS = dict(zip((*PATHOLOGIES, "unknown"), (2, 0, 1, 3), strict=True))


def distributions(cases: pd.DataFrame, out: Path) -> None:
    """Classes, lesion sizes, frame sizes, BI-RADS, devices and descriptors of a collection.

    Args:
        cases: columns of :data:`stdiff.datasets.integrity.COLUMNS`.
        out: PNG to write.
    """
    figure = Figure(figsize=(11, 8.5), layout="constrained")
    grid = figure.subplots(3, 4).ravel()
    pathology = cases["pathology"].fillna("unknown")
    classes = [name for name in _OF_CLASS if (pathology == name).any()]
    colours = [COLOURS[_OF_CLASS[name]] for name in classes]
    _bars(grid[0], "pathology", {name: [(pathology == name).sum()] for name in classes}, colours)
    _lesion_sizes(grid[1], cases, pathology, classes)
    _frame_sizes(grid[2], cases, pathology, classes)
    birads = cases["birads"].value_counts()
    _bars(grid[3], "BI-RADS", {name: [birads[name]] for name in BIRADS if name in birads})
    devices = cases["device"].value_counts().head(6)
    _bars(grid[4], "device", {name: [count] for name, count in devices.items()})
    # Without the value after a flag's colon.
    flags = Counter(flag.partition(":")[0] for row in cases["flags"].dropna() for flag in row)
    _bars(grid[5], "flags", {name: [count] for name, count in flags.most_common(8)})
    for axes, name in zip(grid[6:], _DESCRIPTORS, strict=True):
        _bars(axes, name.replace("_", " "), _by_origin(cases, name), [COLOURS[0], COLOURS[4]])
    grid[6].legend(["annotated", "derived"], fontsize=7, frameon=False)
    write_figure(figure, out)


def _bars(
    axes: Axes, title: str, counts: dict[str, list[int]], colours: Sequence[str] = ()
) -> None:
    """One horizontal bar per name; several counts are stacked."""
    axes.set_title(title, fontsize=9)
    axes.tick_params(labelsize=7)
    if not counts:
        axes.text(0.5, 0.5, "unknown", ha="center", va="center", fontsize=8, color="#555")
        axes.set_axis_off()
        return
    names = [textwrap.shorten(name, 28, placeholder="…") for name in counts]
    stacks = np.array(list(counts.values())).T
    left = np.zeros(len(names))
    for number, stack in enumerate(stacks):
        one_colour = colours[number] if len(stacks) > 1 else (list(colours) or COLOURS[0])
        axes.barh(range(len(names)), stack, left=left, color=one_colour)
        left = left + stack
    for place, total in enumerate(left):
        axes.text(total, place, f" {int(total)}", va="center", fontsize=7)
    axes.set_yticks(range(len(names)), names)
    axes.invert_yaxis()
    axes.set_xlim(0, 1.25 * max(left.max(), 1))
    axes.spines[["top", "right"]].set_visible(False)


def _by_origin(cases: pd.DataFrame, name: str) -> dict[str, list[int]]:
    """Number of images by term: annotated by a person, and derived."""
    exploded = cases[["annotated", name]].explode(name).dropna(subset=[name])
    by_person = [terms is not None and name in terms for terms in exploded["annotated"]]
    annotated = np.array(by_person, dtype=bool)
    counts = {}
    for term in VOCABULARY[name]:
        is_term = (exploded[name] == term).to_numpy()
        if is_term.any():
            counts[term] = [int((is_term & annotated).sum()), int((is_term & ~annotated).sum())]
    return counts


def _lesion_sizes(
    axes: Axes, cases: pd.DataFrame, pathology: pd.Series, classes: list[str]
) -> None:
    area = pd.Series([area_fraction(cell) for cell in cases["measures"]], index=cases.index)
    axes.set_title("largest lesion / image (colours as left)", fontsize=9)
    axes.tick_params(labelsize=7)
    edges = np.geomspace(0.002, 0.6, 22)
    for name in classes:
        of_class = area[(pathology == name) & area.notna()]
        if len(of_class):
            colour = COLOURS[_OF_CLASS[name]]
            clipped = of_class.clip(edges[0], edges[-1])
            axes.hist(clipped, edges, histtype="step", color=colour)
    axes.set_xscale("log")


def _frame_sizes(axes: Axes, cases: pd.DataFrame, pathology: pd.Series, classes: list[str]) -> None:
    axes.set_title("frame, width x height [px]", fontsize=9)
    axes.tick_params(labelsize=7)
    for name in classes:
        cells = cases["transform"][pathology == name].dropna()
        xs, ys = ([cell[f"native_{side}_px"] for cell in cells] for side in ("width", "height"))
        axes.scatter(xs, ys, s=4, alpha=0.5, color=COLOURS[_OF_CLASS[name]])


def pair_montage(pairs: pd.DataFrame, tables: Sequence[Path], out: Path) -> int:
    """Pairs of one scene side by side, conflicting classes first, then the least alike.

    Args:
        pairs: columns of :data:`stdiff.near_duplicates.leaks.PAIR_SCHEMA`.
        tables: case tables that contain both cases of each pair.
        out: PNG to write.

    Returns:
        Number of pairs shown.
    """
    shown = _pairs_to_show(pairs, _cells(tables, pairs, "pathology"))
    pathology, pictures = _cells(tables, shown, "pathology"), _cells(tables, shown, "image")
    tiles, titles = [], []
    for pair in shown.itertuples():
        two = [decode_png(pictures[case_id]["bytes"]) for case_id in (pair.case_a, pair.case_b)]
        tiles.append(np.hstack([_square(image) for image in two]))
        names = [
            case_id if pair.same else f"{case_id} {pathology[case_id]}"
            for case_id in (pair.case_a, pair.case_b)
        ]
        titles.append(f"{names[0]}\n{names[1]}\n{pair.kind}, r = {pair.correlation:.2f}")
    _montage(tiles, titles, out, in_a_row=4, width_in=2.7, height_in=1.85)
    return len(shown)


def _pairs_to_show(pairs: pd.DataFrame, pathology: pd.Series) -> pd.DataFrame:
    """The pairs to show, with a column ``same``: their pathologies do not conflict."""
    one, other = (pairs[name].map(pathology).fillna("") for name in ("case_a", "case_b"))
    # An unknown pathology is no conflict.
    ordered = pairs.assign(same=(one == other) | (one == "") | (other == ""))
    return ordered.sort_values(["same", "correlation", "case_a"]).head(_PAIRS_SHOWN)


def _cells(tables: Sequence[Path], pairs: pd.DataFrame, column: str) -> pd.Series:
    """One column of the pairs' cases by case_id; no other row is kept."""
    ids = {*pairs["case_a"], *pairs["case_b"]}
    rows = (row for table in tables for row in iterate_rows(table, ("case_id", column)))
    return pd.Series({r["case_id"]: r[column] for r in rows if r["case_id"] in ids}, dtype=object)


def quarantine_montage(quarantine: pd.DataFrame, root: Path, out: Path) -> int:
    """Files that were left out, with the reason; a grey tile if the file is no picture.

    Args:
        quarantine: ``source_path`` and ``reason``.
        root: folder of the paths.
        out: PNG to write.

    Returns:
        Number of files shown, evenly spaced if not all.
    """
    rows = quarantine.iloc[evenly_spread(len(quarantine), _FILES_SHOWN)]
    tiles, titles = [], []
    for row in rows.itertuples():
        try:
            tiles.append(_square(read_picture(root / row.source_path).grey_HW))
        except InputError:
            tiles.append(np.full((_TILE_PX, _TILE_PX), 200, np.uint8))
        reason = textwrap.shorten(row.reason, 90, placeholder="…")
        titles.append("\n".join(textwrap.wrap(f"{Path(row.source_path).name}: {reason}", 34)))
    _montage(tiles, titles, out, in_a_row=_TILES_IN_A_ROW, width_in=1.85, height_in=2.2)
    return len(rows)


def _square(image_HW: np.ndarray) -> np.ndarray:
    """(128, 128) uint8 for a contact sheet."""
    size = (_TILE_PX, _TILE_PX)
    return np.asarray(Image.fromarray(image_HW).resize(size, Image.Resampling.BOX))


def _montage(
    tiles: list[np.ndarray],
    titles: list[str],
    out: Path,
    *,
    in_a_row: int,
    width_in: float,
    height_in: float,
) -> None:
    rows = -(-len(tiles) // in_a_row)
    figure = Figure(figsize=(in_a_row * width_in, rows * height_in), layout="constrained")
    for axes in figure.subplots(rows, in_a_row, squeeze=False).ravel():
        axes.set_axis_off()
        if tiles:
            axes.imshow(tiles.pop(0), cmap="gray", vmin=0, vmax=255)
            axes.set_title(titles.pop(0), fontsize=6)
    write_figure(figure, out)
