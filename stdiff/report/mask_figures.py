"""Pictures of lesion masks."""

from __future__ import annotations

import textwrap
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from stdiff.birads.lexicon import PATHOLOGIES
from stdiff.masks.prior import FEATURES, Prior
from stdiff.masks.roughness import BANDS
from stdiff.masks.roughness import NAMES as ROUGHNESS
from stdiff.report.canvas import (
    CLASS_COLOURS,
    Panels,
    classes_legend,
    panel,
    show_grey,
    ticks,
    tiled,
    write_panels,
    write_png,
)
from stdiff.runtime.files import InputError
from stdiff.runtime.randomness import generator
from stdiff.table.cases import images_of

_COLUMNS = 8
_CAPTION_CHARACTERS = 30
_SAMPLES = 2000
GAP_GREY = 110
_AREA_EDGES = np.geomspace(0.001, 1, 41)


def contact_sheet(masks: pd.DataFrame, out: Path) -> None:
    """Masks in reading order, each with its caption.

    Args:
        masks: Case rows with ``mask`` and ``caption``.
        out: PNG to write.

    Raises:
        InputError: no row has a mask.
    """
    masks = masks[masks["mask"].notna()]
    if masks.empty:
        raise InputError("no row of the table has a mask; nothing to show")
    pictures = images_of(masks["mask"])
    rows = -(-len(pictures) // _COLUMNS)
    figure = Figure(figsize=(2.0 * _COLUMNS, 2.35 * rows), layout="constrained")
    axes = np.atleast_1d(figure.subplots(rows, min(_COLUMNS, len(pictures)))).ravel()
    for cell in axes:
        cell.axis("off")
    for cell, picture, caption in zip(axes, pictures, masks["caption"], strict=False):
        show_grey(cell, picture)
        cell.set_title(textwrap.fill(caption or "", _CAPTION_CHARACTERS), fontsize=6)
    write_png(figure, out)


def side_by_side(real_NHW: np.ndarray, new_NHW: np.ndarray, new_name: str, out: Path) -> None:
    """The first 64 real masks on the left, as many new ones on the right."""
    count = min(len(real_NHW), len(new_NHW), _COLUMNS**2)
    figure = Figure(figsize=(12, 6.3), layout="constrained")
    titles = (f"{count} real masks, held out", f"{count} {new_name} masks")
    pairs = zip(figure.subplots(1, 2), titles, (real_NHW, new_NHW), strict=True)
    for axes, title, masks in pairs:
        show_grey(axes, tiled(masks[:count], _COLUMNS, GAP_GREY))
        axes.set_title(title, fontsize=11)
    write_png(figure, out)


def prior_figure(prior: Prior, out: Path) -> Panels:
    """Area, elongation, centre and roughness of 2,000 sampled masks of each pathology.

    Args:
        prior: Of the masks.
        out: Start of the paths of the SVG files.
    """
    area, axes = panel("area"), panel("elongation")
    centre, rough = panel("centre"), panel("roughness of the outline")
    classes = [name for name in PATHOLOGIES if name in prior.groups]
    for pathology in classes:
        rng = generator(0, "prior figure", PATHOLOGIES.index(pathology))
        drawn = prior.draw(pathology, _SAMPLES, rng)
        values = dict(zip(FEATURES, drawn.T, strict=True))
        colour = CLASS_COLOURS[pathology]
        area.hist(values["area_fraction"], _AREA_EDGES, histtype="step", color=colour)
        axes.hist(values["elongation"], 40, histtype="step", color=colour)
        x, y = values["centre_x"][:300], values["centre_y"][:300]
        centre.scatter(x, y, s=4, color=colour, rasterized=True)
        low, middle, high = np.quantile(
            [values[name] for name in ROUGHNESS], (0.25, 0.5, 0.75), axis=1
        )
        orders = [np.sqrt(first * (stop - 1)) for first, stop in BANDS]
        rough.plot(orders, middle, marker="o", ms=4, color=colour)
        rough.fill_between(orders, low, high, color=colour, alpha=0.15, linewidth=0)
    area.set(xlabel="share of the image", ylabel="masks", xscale="log")
    ticks(area, [0.003, 0.01, 0.03, 0.1, 0.3])
    axes.set(xlabel="above 0: wider than tall", ylabel="masks")
    centre.set(xlabel="x, share of the width", ylabel="y, share of the height")
    centre.set(xlim=(0, 1), ylim=(1, 0), aspect="equal")
    rough.set(xlabel="waves around the outline", ylabel="roughness", xscale="log")
    ticks(rough, [3, 5, 10, 20, 30])
    return write_panels([area, axes, centre, rough], out, classes_legend(classes))
