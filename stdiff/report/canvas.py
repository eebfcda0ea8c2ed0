"""Shared by all figures of a report: colours, resolution, contact sheets, intervals, writing."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from stdiff.runtime.files import atomic_write

# Okabe and Ito's colours, distinct with any colour vision; the markers are distinct in grey.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
MARKERS = "osD^vP"
_DPI = 110
_GAP_PX = 2


def write_figure(figure: Figure, out: Path) -> None:
    """Write one PNG atomically."""
    with atomic_write(out) as temporary:
        figure.savefig(temporary, format="png", dpi=_DPI, facecolor="white")


def embedded(png: Path) -> str:
    """A picture as a data URI."""
    return "data:image/png;base64," + base64.b64encode(png.read_bytes()).decode("ascii")


def show_grey(axes: Axes, image_HW: np.ndarray) -> None:
    """Show a uint8 image without a frame."""
    axes.imshow(image_HW, cmap="gray", vmin=0, vmax=255)
    axes.axis("off")


def tiled(images_NHW: np.ndarray, columns: int, gap_grey: int = 255) -> np.ndarray:
    """(H', W') uint8 sheet of equally large images, row by row, 2 px apart."""
    count, height, width = images_NHW.shape
    step_y, step_x = height + _GAP_PX, width + _GAP_PX
    sheet = np.full((-(-count // columns) * step_y, columns * step_x), gap_grey, np.uint8)
    for i, image_HW in enumerate(images_NHW):
        top, left = i // columns * step_y, i % columns * step_x
        sheet[top : top + height, left : left + width] = image_HW
    return sheet[:-_GAP_PX, :-_GAP_PX]


def arms_in_order(result: dict[str, Any], table: pd.DataFrame) -> list[str]:
    """The arms of a table by name, the baseline first."""
    return sorted(set(table["arm"]), key=lambda arm: (arm != result["baseline_arm"], arm))


def draw_arm(
    axes: Axes, x: Sequence[float] | np.ndarray, rows: pd.DataFrame, arm: int, line: str = ""
) -> None:
    """Mean Dice with its interval at each ``x``, in the colour and marker of an arm's number."""
    mean, error = mean_and_error(rows, "dice")
    axes.errorbar(
        x,
        mean,
        yerr=error,
        fmt=f"{MARKERS[arm % len(MARKERS)]}{line}",
        color=COLOURS[arm % len(COLOURS)],
        capsize=3,
        ms=5,
        lw=1,
        label=rows["arm"].iloc[0] if len(rows) else None,
    )


def mean_and_error(rows: pd.DataFrame, name: str) -> tuple[np.ndarray, np.ndarray]:
    """(N,) means and the (2, N) lengths of their intervals' halves, 0 where not known."""
    columns = [f"{name}_{part}" for part in ("mean", "low", "high")]
    mean, low, high = rows[columns].to_numpy(float, na_value=np.nan).T
    return mean, np.nan_to_num([mean - low, high - mean])


def legend_below(figure: Figure, axes: Axes, columns: int) -> None:
    """The legend of one panel, below all of them."""
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(
        handles, labels, loc="outside lower center", ncols=columns, frameon=False, fontsize=9
    )
