"""Figures of a collection: distributions, near-duplicates, files left out."""

from __future__ import annotations

import textwrap
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from PIL import Image

from stdiff.birads.lexicon import BIRADS, VOCABULARY
from stdiff.datasets.pixels import read_picture
from stdiff.report.canvas import (
    CLASS_COLOURS,
    NEUTRAL,
    TEXT_PT,
    Panels,
    Tile,
    classes_legend,
    panel,
    picture,
    ticks,
    write_panels,
)
from stdiff.runtime.files import InputError
from stdiff.runtime.images import decode_png
from stdiff.splitting.groups import area_fraction
from stdiff.table.streaming import evenly_spread, iterate_rows

_DESCRIPTORS = (
    *("shape", "orientation", "margin", "echo_pattern"),
    *("posterior_features", "calcifications"),
)
_PAIRS_SHOWN = 24
_FILES_SHOWN = 24
_TILE_PX = 128


def distributions(cases: pd.DataFrame, out: Path) -> Panels:
    """Classes, lesion sizes, frame sizes, BI-RADS, devices and descriptors of a collection.

    Args:
        cases: columns of :data:`stdiff.datasets.integrity.COLUMNS`.
        out: Start of the paths of the SVG files.
    """
    pathology = cases["pathology"].fillna("unknown")
    classes = [name for name in CLASS_COLOURS if (pathology == name).any()]
    of_class = [(pathology == name).sum() for name in classes]
    birads = cases["birads"].value_counts()
    # Without the value after a flag's colon.
    flags = Counter(flag.partition(":")[0] for row in cases["flags"].dropna() for flag in row)
    counted = {
        "BI-RADS": {name: [birads[name]] for name in BIRADS if name in birads},
        "device": {name: [n] for name, n in cases["device"].value_counts().head(6).items()},
        "flags": {name: [count] for name, count in flags.most_common(8)},
    }
    counted |= {name.replace("_", " "): _by_origin(cases, name) for name in _DESCRIPTORS}
    plots = [
        _bars(
            "pathology",
            {name: [count] for name, count in zip(classes, of_class, strict=True)},
            [CLASS_COLOURS[name] for name in classes],
        ),
        _lesion_sizes(cases, pathology, classes),
        _frame_sizes(cases, pathology, classes),
        *(_bars(title, counts) for title, counts in counted.items() if counts),
    ]
    return write_panels(plots, out, classes_legend(classes))


def _bars(title: str, counts: dict[str, list[int]], colours: Sequence[str] = ()) -> Axes:
    """One horizontal bar per name; a second count is stacked on the first, paler."""
    axes = panel(title, height_in=0.9 + 0.26 * len(counts))
    names = [textwrap.shorten(name, 28, placeholder="…") for name in counts]
    stacks = np.array(list(counts.values())).T
    left = np.zeros(len(names))
    for stack, alpha in zip(stacks, (1, 0.45), strict=False):
        axes.barh(range(len(names)), stack, left=left, color=list(colours) or NEUTRAL, alpha=alpha)
        left = left + stack
    for place, total in enumerate(left):
        axes.text(total, place, f" {int(total)}", va="center", fontsize=TEXT_PT)
    axes.set_yticks(range(len(names)), names)
    axes.invert_yaxis()
    axes.set_xlim(0, 1.3 * max(left.max(), 1))
    axes.locator_params(axis="x", nbins=4, integer=True)
    return axes


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


def _lesion_sizes(cases: pd.DataFrame, pathology: pd.Series, classes: list[str]) -> Axes:
    area = pd.Series([area_fraction(cell) for cell in cases["measures"]], index=cases.index)
    axes = panel("size of the largest lesion")
    edges = np.geomspace(0.002, 0.6, 22)
    for name in classes:
        of_class = area[(pathology == name) & area.notna()]
        if len(of_class):
            clipped = of_class.clip(edges[0], edges[-1])
            axes.hist(clipped, edges, histtype="step", color=CLASS_COLOURS[name])
    axes.set(xscale="log", xlabel="share of the image", ylabel="images")
    ticks(axes, [0.003, 0.01, 0.03, 0.1, 0.3])
    return axes


def _frame_sizes(cases: pd.DataFrame, pathology: pd.Series, classes: list[str]) -> Axes:
    axes = panel("size of the frame")
    for name in classes:
        cells = cases["transform"][pathology == name].dropna()
        xs, ys = ([cell[f"native_{side}_px"] for cell in cells] for side in ("width", "height"))
        axes.scatter(xs, ys, s=4, alpha=0.5, color=CLASS_COLOURS[name], rasterized=True)
    axes.set(xlabel="width [px]", ylabel="height [px]")
    axes.locator_params(axis="x", nbins=4)
    return axes


def pair_tiles(pairs: pd.DataFrame, tables: Sequence[Path]) -> list[Tile]:
    """Pairs of one scene side by side, conflicting classes first, then the least alike.

    Args:
        pairs: columns of :data:`stdiff.near_duplicates.leaks.PAIR_SCHEMA`.
        tables: case tables that contain both cases of each pair.
    """
    shown = _pairs_to_show(pairs, _cells(tables, pairs, "pathology"))
    pathology, pictures = _cells(tables, shown, "pathology"), _cells(tables, shown, "image")
    tiles = []
    for pair in shown.itertuples():
        cases = pair.case_a, pair.case_b
        two = [_square(decode_png(pictures[case_id]["bytes"])) for case_id in cases]
        names = [name if pair.same else f"{name} {pathology[name]}" for name in cases]
        lines = [*names, f"{pair.kind}, r = {pair.correlation:.2f}"]
        tiles.append(Tile(picture(np.hstack(two), None), lines))
    return tiles


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


def quarantine_tiles(quarantine: pd.DataFrame, root: Path) -> list[Tile]:
    """Files that were left out, with the reason; evenly spaced if not all are shown.

    Args:
        quarantine: ``source_path`` and ``reason``.
        root: folder of the paths.
    """
    tiles = []
    for row in quarantine.iloc[evenly_spread(len(quarantine), _FILES_SHOWN)].itertuples():
        try:
            image = picture(_square(read_picture(root / row.source_path).grey_HW))
        except InputError:
            image = None
        reason = textwrap.shorten(row.reason, 90, placeholder="…")
        tiles.append(Tile(image, [Path(row.source_path).name, reason]))
    return tiles


def _square(image_HW: np.ndarray) -> np.ndarray:
    """(128, 128) uint8, so that a sheet's tiles are equally large."""
    size = (_TILE_PX, _TILE_PX)
    return np.asarray(Image.fromarray(image_HW).resize(size, Image.Resampling.BOX))
