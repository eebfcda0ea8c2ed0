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
from stdiff.report.canvas import COLOURS, MARKERS, show_grey, tiled, write_figure
from stdiff.runtime.files import InputError
from stdiff.runtime.randomness import generator
from stdiff.table.cases import images_of

_COLUMNS = 8
_CAPTION_CHARACTERS = 30
_SAMPLES = 2000
_GAP_GREY = 110


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
    write_figure(figure, out)


def side_by_side(real_NHW: np.ndarray, new_NHW: np.ndarray, new_name: str, out: Path) -> None:
    """The first 64 real masks on the left, as many new ones on the right."""
    count = min(len(real_NHW), len(new_NHW), _COLUMNS**2)
    figure = Figure(figsize=(12, 6.3), layout="constrained")
    titles = (f"{count} real masks, held out", f"{count} {new_name} masks")
    pairs = zip(figure.subplots(1, 2), titles, (real_NHW, new_NHW), strict=True)
    for axes, title, masks in pairs:
        show_grey(axes, tiled(masks[:count], _COLUMNS, _GAP_GREY))
        axes.set_title(title, fontsize=11)
    write_figure(figure, out)


def prior_figure(prior: Prior, out: Path) -> None:
    """Area, elongation, centre and roughness of 2,000 sampled masks of each pathology."""
    figure = Figure(figsize=(13, 3.2), layout="constrained")
    area, axes, centre, rough = figure.subplots(1, 4)
    for number, pathology in enumerate(PATHOLOGIES):
        if pathology not in prior.groups:
            continue
        drawn = prior.draw(pathology, _SAMPLES, generator(0, "prior figure", number))
        values = dict(zip(FEATURES, drawn.T, strict=True))
        look = {"color": COLOURS[number], "label": pathology}
        area.hist(np.log10(values["area_fraction"]), 40, histtype="step", **look)
        axes.hist(values["elongation"], 40, histtype="step", **look)
        centre.scatter(values["centre_x"][:300], values["centre_y"][:300], s=4, **look)
        low, middle, high = np.quantile(
            [values[name] for name in ROUGHNESS], (0.25, 0.5, 0.75), axis=1
        )
        orders = [np.sqrt(first * (stop - 1)) for first, stop in BANDS]
        rough.plot(orders, middle, marker=MARKERS[number], **look)
        rough.fill_between(orders, low, high, color=COLOURS[number], alpha=0.15, linewidth=0)
    area.set(xlabel="log₁₀ of the area fraction", ylabel="masks")
    axes.set(xlabel="elongation, ln(long / short axis)")
    centre.set(xlabel="centre, x", ylabel="y (down)", xlim=(0, 1), ylim=(1, 0), aspect="equal")
    rough.set(xlabel="order (waves around the outline)", ylabel="roughness", xscale="log")
    rough.set_xticks([3, 5, 10, 20, 30], ["3", "5", "10", "20", "30"], minor=False)
    rough.minorticks_off()
    rough.legend(frameon=False)
    write_figure(figure, out)
