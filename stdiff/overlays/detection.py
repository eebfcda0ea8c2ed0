"""Find marks burnt into a frame (callipers, text, rulers, colour, borders) and their pixels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, partial

import cv2
import numpy as np

from stdiff.overlays.borders import has_black_border, has_ruler
from stdiff.overlays.callipers import Calliper, find_callipers, thin_lines
from stdiff.overlays.glyphs import Strokes, find_strokes, words

FLAGS = ("black_border", "burnt_in_text", "callipers", "colour", "ruler")

_SMALLEST_PX = 24  # in smaller images marks cannot be distinguished from speckle
# JPEG and resampling make the channels of a grey image differ by a level or two.
_GREY_SPREAD = 2
_COLOURED_SHARE = 1e-4
_COLOURED_GREY = 40
_DOPPLER_PX = ((5, 5), (1, 17), (17, 1))  # (height, width) too large for a letter or calliper
_LABEL_PX = 20  # distance of a calliper's number
# A cross has no more than one number; letters have many neighbours.
_OWN_PX, _LINE_PX, _CLEAR_GREY, _LEAST_LETTERS = 6, 40, 24, 3
_RIM_SHARE = 0.06
_GLYPH_MARGIN_PX = 4
# Measuring lines are dotted at a constant pace.
_DOT_GREY = 20
_LEAST_DOTS = 4
_LONGEST_PACE_PX = 10
_PACE_SLACK_PX = 1
_EVEN_SHARE = 0.6


@dataclass(frozen=True)
class Marks:
    """Marks on a frame.

    Attributes:
        flags: those of :data:`FLAGS` that apply, sorted.
        lines_HW: (height, width) uint8, :meth:`stdiff.overlays.callipers.Thin.any_HW`.
        writing: runs of letter strokes.
        callipers: measuring crosses.
    """

    flags: tuple[str, ...]
    lines_HW: np.ndarray
    writing: tuple[Strokes, ...] = ()
    callipers: tuple[Calliper, ...] = ()

    @cached_property
    def mask_HW(self) -> np.ndarray:  # noqa: N802
        """(height, width) bool, True on callipers, measuring lines and text."""
        return _drawn_pixels(self.lines_HW, self.writing, self.callipers)


def is_coloured(rgb_HWC: np.ndarray) -> bool:
    """Whether 0.01 % of a uint8 RGB image have channels that differ by more than 2 levels."""
    spread_HW = _spread(rgb_HWC)
    coloured = cv2.countNonZero(cv2.threshold(spread_HW, _GREY_SPREAD, 1, cv2.THRESH_BINARY)[1])
    return coloured > _COLOURED_SHARE * spread_HW.size


def _spread(rgb_HWC: np.ndarray) -> np.ndarray:
    red, green, blue = cv2.split(rgb_HWC)
    return cv2.subtract(cv2.max(cv2.max(red, green), blue), cv2.min(cv2.min(red, green), blue))


def _without_doppler(rgb_HWC: np.ndarray) -> np.ndarray:
    """The brightest channel, with coloured blobs and the long lines of Doppler boxes set to 0."""
    coloured_HW = cv2.threshold(_spread(rgb_HWC), _COLOURED_GREY, 255, cv2.THRESH_BINARY)[1]
    black_HW = np.zeros_like(coloured_HW)
    for height, width in _DOPPLER_PX:
        part_HW = cv2.morphologyEx(coloured_HW, cv2.MORPH_OPEN, np.ones((height, width), np.uint8))
        black_HW = cv2.max(black_HW, part_HW)
    black_HW = cv2.dilate(black_HW, np.ones((3, 3), np.uint8))
    return np.where(black_HW > 0, 0, rgb_HWC.max(axis=2))


def find_marks(grey_HW: np.ndarray, rgb_HWC: np.ndarray | None = None) -> Marks:
    """Flags and pixels of the marks on a frame.

    ``callipers``: a measuring cross of one grey with equal arms, or of a shape that scanners draw.
    ``burnt_in_text``: upright strokes of one grey, several in a row, or one brighter beside black
    than tissue can be. ``black_border``: bars without echo, 2 % of a side or wider. ``ruler``: at
    least five equal, equally spaced ticks along the left or right side. ``colour``: see
    :func:`is_coloured`.

    Args:
        grey_HW: (height, width) uint8.
        rgb_HWC: (height, width, 3) uint8 of the same image, if it has colours; a coloured mark
            then counts with its brightest channel.
    """
    flags = set()
    bright_HW = np.ascontiguousarray(grey_HW)
    if rgb_HWC is not None and is_coloured(rgb_HWC):
        flags.add("colour")
        bright_HW = _without_doppler(rgb_HWC)
    if min(grey_HW.shape) < _SMALLEST_PX:
        return Marks(tuple(sorted(flags)), np.zeros_like(bright_HW))
    thin = thin_lines(bright_HW)
    lines_HW = thin.any_HW()
    strokes = find_strokes(bright_HW, thin.upright_HW)
    found = [one for one in find_callipers(bright_HW, thin) if not _is_letter(one, strokes)]
    callipers = tuple(_not_alone_at_rim(found, grey_HW.shape[1]))
    written, numbers = _writing(strokes, callipers)
    writing = (*written, *numbers)
    there = {
        "callipers": bool(callipers),
        "burnt_in_text": bool(written),
        "black_border": has_black_border(
            bright_HW, partial(_drawn_pixels, lines_HW, writing, callipers)
        ),
        "ruler": has_ruler(lines_HW),
    }
    flags |= {name for name, holds in there.items() if holds}
    return Marks(tuple(sorted(flags)), lines_HW, writing, callipers)


def _drawn_pixels(
    lines_HW: np.ndarray, writing: Sequence[Strokes], callipers: Sequence[Calliper]
) -> np.ndarray:
    mask_HW = np.zeros(lines_HW.shape, bool)
    for run in writing:
        _mark_run(mask_HW, lines_HW, run)
    for calliper in callipers:
        mask_HW[tuple(calliper.pixels_N2.T)] = True
    _mark_measuring_lines(mask_HW, lines_HW, callipers)
    return mask_HW


def _is_letter(one: Calliper, strokes: Strokes) -> bool:
    """Whether a cross is a T, t or X: at least three clear strokes are on the same line."""
    left, top, width, height = strokes.boxes_N4.T
    level = (top <= one.y_px + _GLYPH_MARGIN_PX) & (top + height > one.y_px - _GLYPH_MARGIN_PX)
    away = np.maximum(left - one.x_px, one.x_px - (left + width - 1))
    beside = level & (away > _OWN_PX) & (away <= _LINE_PX) & (strokes.scores_N >= _CLEAR_GREY)
    return int(beside.sum()) >= _LEAST_LETTERS


def _not_alone_at_rim(callipers: list[Calliper], width_px: int) -> list[Calliper]:
    """All callipers; none if the only one is at the rim, since it is then a tick of a scale."""
    if len(callipers) == 1:
        x = callipers[0].x_px
        if min(x, width_px - 1 - x) < _RIM_SHARE * width_px:
            return []
    return callipers


def _writing(
    strokes: Strokes, callipers: Sequence[Calliper]
) -> tuple[list[Strokes], list[Strokes]]:
    """Runs of writing, and the strokes of the numbers beside callipers."""
    middles_N2 = np.array([(one.y_px, one.x_px) for one in callipers], int).reshape(-1, 2)
    numbers_N = strokes.near(middles_N2, _LABEL_PX)
    numbers = [
        strokes.where(np.arange(len(numbers_N)) == index) for index in np.flatnonzero(numbers_N)
    ]
    return words(strokes.where(~numbers_N)), numbers


def _mark_run(mask_HW: np.ndarray, lines_HW: np.ndarray, run: Strokes) -> None:
    """Mark the thin bright pixels in and around the strokes of a run."""
    left, top, width, height = run.boxes_N4.T
    beside = _GLYPH_MARGIN_PX + int(height.max()) // 2
    rows = slice(max(0, top.min() - _GLYPH_MARGIN_PX), (top + height).max() + _GLYPH_MARGIN_PX)
    columns = slice(max(0, left.min() - beside), (left + width).max() + beside)
    mask_HW[rows, columns] |= lines_HW[rows, columns] >= run.middle_grey() / 2


def _mark_measuring_lines(
    mask_HW: np.ndarray, lines_HW: np.ndarray, callipers: Sequence[Calliper]
) -> None:
    """Mark the dots between any two callipers that a dotted line joins."""
    for index, one in enumerate(callipers):
        for other in callipers[index + 1 :]:
            dots_N2 = _dots_between(lines_HW, one, other)
            mask_HW[tuple(dots_N2.T)] = True


def _dots_between(lines_HW: np.ndarray, one: Calliper, other: Calliper) -> np.ndarray:
    """(y, x) rows of the dots of a measuring line; empty if there is no line."""
    dy, dx = other.y_px - one.y_px, other.x_px - one.x_px
    length = max(abs(dy), abs(dx))
    steps = np.arange(length + 1)
    y = one.y_px + np.rint(steps * dy / max(1, length)).astype(int)
    x = one.x_px + np.rint(steps * dx / max(1, length)).astype(int)
    # Across the line, which may be a pixel off the centres of its crosses.
    side_y, side_x = (0, 1) if abs(dy) > abs(dx) else (1, 0)
    across = np.array([-1, 0, 1])
    band_y = np.clip(y[:, None] + side_y * across, 0, lines_HW.shape[0] - 1)
    band_x = np.clip(x[:, None] + side_x * across, 0, lines_HW.shape[1] - 1)
    band_NK = lines_HW[band_y, band_x]
    brightest_N = band_NK.max(axis=1)
    lit_NK = band_NK >= max(_DOT_GREY, np.percentile(brightest_N, 90) / 2)
    lit_N = lit_NK.any(axis=1)
    paces = np.diff(np.flatnonzero(lit_N[1:] & ~lit_N[:-1]))
    pace = np.median(paces) if len(paces) >= _LEAST_DOTS else np.inf
    even = (np.abs(paces - pace) <= _PACE_SLACK_PX).sum() if pace <= _LONGEST_PACE_PX else 0
    if even < _EVEN_SHARE * max(len(paces), length / pace):
        return np.empty((0, 2), int)
    return np.stack([band_y[lit_NK], band_x[lit_NK]], axis=1)
