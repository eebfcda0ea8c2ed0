"""Pictures of a synthetic corpus."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from stdiff.report.canvas import OUTLINE_COLOUR, REJECTED_COLOUR, write_png
from stdiff.runtime.files import InputError
from stdiff.runtime.images import decode_png
from stdiff.table.streaming import count_rows, is_rejected, is_synthetic, spread_rows

_COLUMNS = 8
_LINE_LENGTH = 34
_SHOWN = ("case_id", "image", "mask", "caption", "flags", "model_sha256", "filter")


def corpus_sheet(shards: Sequence[Path], count: int, out: Path) -> None:
    """Images evenly spread over a corpus, each with its mask's outline and its caption below.

    None is picked: what the filter rejected is shown too, in another colour and with the reasons.

    Args:
        shards: of one corpus, in order (any case tables will do).
        count: of images, >= 1; fewer are shown if the corpus has fewer.
        out: PNG.

    Raises:
        InputError: a count below 1, a table that cannot be read, or a row without an image.
    """
    if count < 1:
        raise InputError(f"--count {count}: expected 1 or more images to show")
    rows = list(spread_rows(shards, count, _SHOWN))
    if without := [row["case_id"] for row in rows if row["image"] is None]:
        raise InputError(
            f"{len(without)} of the {len(rows)} rows to be shown have no image, e.g. {without[0]}; "
            "name the shards that `stdiff generate` made (a plan: `stdiff masks show`)"
        )
    if not rows:
        raise InputError("the corpus holds no image; name the shards that `stdiff generate` wrote")
    lines = -(-len(rows) // _COLUMNS)
    columns = min(_COLUMNS, len(rows))
    figure = Figure(figsize=(2.0 * columns, 2.75 * lines + 0.4), layout="constrained")
    cells = figure.subplots(lines, columns, squeeze=False).ravel()
    for cell in cells:
        cell.set(xticks=[], yticks=[])
        cell.spines[:].set_visible(False)
    for cell, row in zip(cells, rows, strict=False):
        _show(cell, row)
    synthetic = sum(map(is_synthetic, rows))
    figure.suptitle(
        f"{len(rows)} of {sum(count_rows(shards))} images, evenly spread; {synthetic} of them are "
        "SYNTHETIC: not for diagnosis",
        fontsize=9,
    )
    write_png(figure, out)


def _show(axes: Axes, row: dict[str, Any]) -> None:
    """One image; yellow is the mask's outline, red that of a rejected image."""
    colour = REJECTED_COLOUR if is_rejected(row) else OUTLINE_COLOUR
    axes.imshow(
        decode_png(row["image"]["bytes"]),
        cmap="gray",
        vmin=0,
        vmax=255,
        interpolation="antialiased",
    )
    if row["mask"] is not None and (mask_HW := decode_png(row["mask"]["bytes"])).any():
        # A lesion that reaches the border is outlined there too.
        height, width = mask_HW.shape
        axes.contour(
            np.arange(-1, width + 1),
            np.arange(-1, height + 1),
            np.pad(mask_HW, 1),
            levels=[127],
            colors=[colour],
            linewidths=0.9,
        )
        axes.set(xlim=(-0.5, width - 0.5), ylim=(height - 0.5, -0.5))
    caption = textwrap.fill(row["caption"] or "", _LINE_LENGTH)
    axes.set_xlabel(caption, fontsize=6)
    if is_rejected(row):
        reasons = ", ".join(row["filter"]["reasons"] or ())
        axes.set_title(
            textwrap.fill(f"rejected: {reasons}", _LINE_LENGTH), fontsize=6, color=REJECTED_COLOUR
        )
