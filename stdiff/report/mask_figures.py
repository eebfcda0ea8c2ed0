"""Pictures of lesion masks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from stdiff.birads.lexicon import PATHOLOGIES
from stdiff.masks.prior import FEATURES, Prior
from stdiff.masks.roughness import BANDS
from stdiff.masks.roughness import NAMES as ROUGHNESS
from stdiff.report.canvas import COLOURS, MARKERS, write_figure
from stdiff.runtime.files import InputError
from stdiff.runtime.randomness import generator
from stdiff.table.cases import images_of

_COLUMNS = 8
_LINE_LENGTH = 30
_DRAWS = 2000


def contact_sheet(masks: pd.DataFrame, out: Path) -> None:
    """Masks in reading order, each with its caption.

    Args:
        masks: case rows with ``mask`` and ``caption``.
        out: PNG.

    Raises:
        InputError: no mask.
    """
    masks = masks[masks["mask"].notna()]
    if masks.empty:
        raise InputError("the table holds no mask to show")
    pictures = images_of(masks["mask"])
    rows = -(-len(pictures) // _COLUMNS)
    figure = Figure(figsize=(2.0 * _COLUMNS, 2.35 * rows), layout="constrained")
    axes = np.atleast_1d(figure.subplots(rows, min(_COLUMNS, len(pictures)))).ravel()
    for cell in axes:
        cell.axis("off")
    for cell, picture, caption in zip(axes, pictures, masks["caption"], strict=False):
        _show(cell, picture)
        cell.set_title(_wrapped(caption or ""), fontsize=6)
    write_figure(figure, out)


def side_by_side(real_NHW: np.ndarray, new_NHW: np.ndarray, new_name: str, out: Path) -> None:
    """Up to 64 real masks on the left, as many new ones on the right, none of them picked."""
    count = min(len(real_NHW), len(new_NHW), _COLUMNS**2)
    figure = Figure(figsize=(12, 6.3), layout="constrained")
    titles = (f"{count} real masks, held out", f"{count} {new_name} masks")
    pairs = zip(figure.subplots(1, 2), titles, (real_NHW, new_NHW), strict=True)
    for axes, title, masks in pairs:
        _show(axes, _tiled(masks[:count]))
        axes.set_title(title, fontsize=11)
    write_figure(figure, out)


def prior_figure(prior: Prior, out: Path) -> None:
    """What masks of a prior are like, by pathology; from 2,000 draws of each."""
    figure = Figure(figsize=(13, 3.2), layout="constrained")
    area, axes, centre, rough = figure.subplots(1, 4)
    for number, pathology in enumerate(PATHOLOGIES):
        if pathology not in prior.groups:
            continue
        drawn = prior.draw(pathology, _DRAWS, generator(0, "prior figure", number))
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


def _tiled(masks_NHW: np.ndarray) -> np.ndarray:
    """One picture, a grey line between masks."""
    _, height, width = masks_NHW.shape
    rows = -(-len(masks_NHW) // _COLUMNS)
    sheet = np.full((rows * (height + 2), _COLUMNS * (width + 2)), 110, np.uint8)
    for number, mask_HW in enumerate(masks_NHW):
        top, left = (number // _COLUMNS) * (height + 2), (number % _COLUMNS) * (width + 2)
        sheet[top : top + height, left : left + width] = mask_HW
    return sheet


def _show(axes: Axes, picture_HW: np.ndarray) -> None:
    axes.imshow(picture_HW, cmap="gray", vmin=0, vmax=255, interpolation="antialiased")
    axes.axis("off")


def _wrapped(caption: str) -> str:
    words, lines = caption.split(), [""]
    for word in words:
        if len(lines[-1]) + len(word) >= _LINE_LENGTH:
            lines.append("")
        lines[-1] = f"{lines[-1]} {word}".strip()
    return "\n".join(lines)
