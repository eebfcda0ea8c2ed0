"""Shared by all figures: colours, small plots as SVG, pictures as PNG, outlines of masks."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image
from skimage.measure import find_contours

from stdiff.runtime.files import atomic_write, write_text
from stdiff.runtime.images import encode_png

# One colour has one meaning in all figures; each is visible on white, on black and on ultrasound.
CLASS_COLOURS = {
    "normal": "#009E73",
    "benign": "#0072B2",
    "malignant": "#D55E00",
    "unknown": "#8A8A8A",
}
ARM_COLOURS = ("#12A4B4", "#D0489B", "#9A9A1F", "#8A6FD6", "#A8703A", "#6E7F3C")
REAL_COLOUR, GENERATED_COLOUR = ARM_COLOURS[:2]
OUTLINE_COLOUR, REJECTED_COLOUR = "#FFD23F", "#E0245E"
NEUTRAL = "0.5"
# The markers are distinct in grey; the same shapes as characters.
MARKERS, _GLYPHS = "osD^vP", "●■◆▲▼✚"
TEXT_PT = 9  # 12 CSS px: plots are shown at their natural size, never smaller
_PNG_DPI = 110
_GAP_PX = 2
_TILE_PX = 128


@dataclass(frozen=True)
class Panels:
    """Small plots that a page lays out side by side or below each other, with one legend."""

    plots: list[Markup]
    legend: list[tuple[str, str, str]]  # name, colour, glyph


@dataclass(frozen=True)
class Tile:
    """A picture with lines of text below it.

    Attributes:
        image: data URI; None where there is no picture to show.
        lines: of text.
        outlines: (path of :func:`outline`, colour, whether dashed) of each mask.
        size: (width, height) of the paths' image in px; None without outlines.
    """

    image: str | None
    lines: list[str]
    outlines: list[tuple[str, str, bool]] = field(default_factory=list)
    size: tuple[int, int] | None = None


def panel(title: str, width_in: float = 3.4, height_in: float = 2.6) -> Axes:
    """An empty small plot; its text is :data:`TEXT_PT` high."""
    axes = Figure(figsize=(width_in, height_in), layout="constrained").subplots()
    axes.set_title(title, fontsize=TEXT_PT)
    axes.tick_params(labelsize=TEXT_PT)
    for axis in (axes.xaxis, axes.yaxis):
        axis.label.set_size(TEXT_PT)
    axes.spines[["top", "right"]].set_visible(False)
    return axes


def ticks(axes: Axes, values: Sequence[float]) -> None:
    """Ticks of a logarithmic x axis at these values only, without powers of ten."""
    axes.set_xticks(values, [f"{value:g}" for value in values])
    axes.minorticks_off()


def write_panels(
    plots: Sequence[Axes], out: Path, legend: Sequence[tuple[str, str, str]] = ()
) -> Panels:
    """Write plots as ``<out>-1.svg``, ``<out>-2.svg``, …, and return them for a page."""
    paths = [out.with_name(f"{out.name}-{number}.svg") for number in range(1, len(plots) + 1)]
    markup = [_write_svg(axes, path) for axes, path in zip(plots, paths, strict=True)]
    return Panels(markup, list(legend))


def _write_svg(axes: Axes, out: Path) -> Markup:
    """Text stays text; black is the colour of the page's text, so that a dark page can be read."""
    text = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "stdiff"}):
        axes.get_figure().savefig(text, format="svg", transparent=True, metadata={"Date": None})
    svg = text.getvalue()
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg[svg.index("<svg") :], flags=re.DOTALL)
    # A page holds many plots, and an id only once. Ids that are referred to are hashes.
    svg = re.sub(r' id="[A-Za-z.]+\d*_\d+"', "", svg).replace("#000000", "currentColor")
    write_text(out, svg)
    # Within HTML no name space is needed, so that the page names no address at all.
    return Markup(re.sub(r' xmlns(:xlink)?="[^"]*"', "", svg))  # noqa: S704 (matplotlib escapes)


def write_png(figure: Figure, out: Path) -> None:
    """Write one PNG atomically."""
    with atomic_write(out) as temporary:
        figure.savefig(temporary, format="png", dpi=_PNG_DPI, facecolor="white")


def picture(image_HW: np.ndarray, side_px: int | None = _TILE_PX) -> str:
    """A uint8 picture as a data URI, reduced to at most ``side_px`` on its longer side."""
    height, width = image_HW.shape
    if side_px and max(height, width) > side_px:
        scale = side_px / max(height, width)
        size = max(1, round(width * scale)), max(1, round(height * scale))
        image_HW = np.asarray(Image.fromarray(image_HW).resize(size, Image.Resampling.BOX))
    return "data:image/png;base64," + base64.b64encode(encode_png(image_HW)).decode("ascii")


def sheet(images_NHW: np.ndarray, columns: int, gap_grey: int = 255) -> str:
    """Equally large images as one picture (data URI), row by row."""
    return picture(tiled(images_NHW, columns, gap_grey), columns * _TILE_PX)


def outline(mask_HW: np.ndarray) -> str:
    """SVG path around the white pixels of a mask, in px; empty for an empty mask."""
    # A lesion that reaches the border is outlined there too.
    lines = find_contours(np.pad(mask_HW > 0, 1).astype(float), 0.5)
    return "".join(
        "M" + " ".join(f"{x - 0.5:.1f},{y - 0.5:.1f}" for y, x in line) + "Z" for line in lines
    )


def show_grey(axes: Axes, image_HW: np.ndarray) -> None:
    """Show a uint8 image without a frame."""
    axes.imshow(image_HW, cmap="gray", vmin=0, vmax=255)
    axes.axis("off")


def tiled(images_NHW: np.ndarray, columns: int, gap_grey: int = 255) -> np.ndarray:
    """(H', W') uint8 sheet of equally large images, row by row, 2 px apart."""
    count, height, width = images_NHW.shape
    step_y, step_x = height + _GAP_PX, width + _GAP_PX
    sheet_HW = np.full((-(-count // columns) * step_y, columns * step_x), gap_grey, np.uint8)
    for i, image_HW in enumerate(images_NHW):
        top, left = i // columns * step_y, i % columns * step_x
        sheet_HW[top : top + height, left : left + width] = image_HW
    return sheet_HW[:-_GAP_PX, :-_GAP_PX]


def arms_in_order(result: dict[str, Any]) -> list[str]:
    """All arms of a parsed ``gain.json``, the baseline first, then by name."""
    arms = {record["arm"] for record in result["by_arm"]}
    return sorted(arms, key=lambda arm: (arm != result["baseline_arm"], arm))


def arm_colour(number: int) -> str:
    """The colour of an arm's number in :func:`arms_in_order`."""
    return ARM_COLOURS[number % len(ARM_COLOURS)]


def arms_legend(arms: Sequence[str]) -> list[tuple[str, str, str]]:
    """Name, colour and glyph of every arm."""
    return [(arm, arm_colour(i), _GLYPHS[i % len(_GLYPHS)]) for i, arm in enumerate(arms)]


def classes_legend(classes: Sequence[str], glyph: str = "■") -> list[tuple[str, str, str]]:
    """Name, colour and glyph of some of :data:`CLASS_COLOURS`."""
    return [(name, CLASS_COLOURS[name], glyph) for name in classes]


def draw_arm(
    axes: Axes, x: Sequence[float] | np.ndarray, rows: pd.DataFrame, arm: int, line: str = ""
) -> None:
    """Mean Dice with its interval at each ``x``, in the colour and marker of an arm's number."""
    mean, error = mean_and_error(rows, "dice")
    look = {"fmt": f"{MARKERS[arm % len(MARKERS)]}{line}", "color": arm_colour(arm)}
    axes.errorbar(x, mean, yerr=error, capsize=3, ms=5, lw=1, **look)


def mean_and_error(rows: pd.DataFrame, name: str) -> tuple[np.ndarray, np.ndarray]:
    """(N,) means and the (2, N) lengths of their intervals' halves, 0 where not known."""
    columns = [f"{name}_{part}" for part in ("mean", "low", "high")]
    mean, low, high = rows[columns].to_numpy(float, na_value=np.nan).T
    return mean, np.nan_to_num([mean - low, high - mean])
