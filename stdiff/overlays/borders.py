"""The rim of a frame: bars without echo, and the depth scale."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np

# ---- bars
# A scanner's black is not always 0, and JPEG smears it.
_BLACK_GREY, _FAINT_GREY = 10, 3  # the second where tissue may be nearly as dark
_STRAY_SHARE = 0.02  # of a line that may be brighter, so that a speck does not hide a bar
_STEP_PX, _STEP_SHARE = 4, 0.15  # echoes begin within so many lines, on this share of a line
_LEAST_SHARE = 0.02  # of the side, below which a bar is no border
_LINE, _LETTER = np.ones((1, 41), np.uint8), np.ones((9, 9), np.uint8)

# ---- depth scale
_STRIP_SHARE = 0.1
_TICK_GREY = 25
_TICK_PX = 14
_LEAST_TICKS = 5
_LEAST_REACH = 0.4  # of the height, from the first tick to the last
_MOST_SPECKS = 200  # in more than these any pattern can be found
_LEAST_STEP_PX = 10
_SLACK_PX = 1.2
_PEAK_SLACK = 0.35  # of its contrast, by which a tick may differ from another
_FILLED_SHARE, _ON_PACE_SHARE = 0.8, 0.7  # of the places, and of the specks alike


def black_bars_px(
    grey_HW: np.ndarray, marks_HW: Callable[[], np.ndarray]
) -> tuple[int, int, int, int]:
    """Lines without echo at the (left, top, right, bottom) rim, in pixels.

    At the bottom, where echoes fade with depth, a bar must end in a step to count: darkness that
    comes by and by is tissue. A frame that is black throughout has no bars.

    Args:
        grey_HW: (height, width) uint8.
        marks_HW: gives the boolean map of what was drawn on it, which counts as dark; asked for
            only where the rim is dark.
    """
    rim = (grey_HW[0], grey_HW[-1], grey_HW[:, 0], grey_HW[:, -1])
    if all(np.mean(line > _BLACK_GREY) > _STRAY_SHARE for line in rim):
        return 0, 0, 0, 0  # as in nearly every frame
    drawn_HW = marks_HW()
    across, down = _lit_shares(grey_HW, drawn_HW, _BLACK_GREY)
    bottom = _bar_px(_lit_shares(grey_HW, drawn_HW, _FAINT_GREY)[1][::-1])
    fades = down[::-1][bottom : bottom + _STEP_PX].max() < _STEP_SHARE
    return _bar_px(across), _bar_px(down), _bar_px(across[::-1]), 0 if fades else bottom


def _lit_shares(
    grey_HW: np.ndarray, marks_HW: np.ndarray, black_grey: int
) -> tuple[np.ndarray, np.ndarray]:
    """Share of each column and of each row that is brighter than black and not drawn."""
    lit_HW = cv2.threshold(grey_HW, black_grey, 1, cv2.THRESH_BINARY)[1]
    if marks_HW.any():
        # The letters of a line that were not found stand between those that were.
        line_HW = cv2.morphologyEx(marks_HW.astype(np.uint8), cv2.MORPH_CLOSE, _LINE)
        lit_HW = cv2.subtract(lit_HW, cv2.dilate(line_HW, _LETTER))
    height, width = grey_HW.shape
    columns = cv2.reduce(lit_HW, 0, cv2.REDUCE_SUM, dtype=cv2.CV_32S)[0] / height
    rows = cv2.reduce(lit_HW, 1, cv2.REDUCE_SUM, dtype=cv2.CV_32S)[:, 0] / width
    return columns, rows


def has_black_border(grey_HW: np.ndarray, marks_HW: Callable[[], np.ndarray]) -> bool:
    """Whether bars take at least 2 % of the height or of the width on some side."""
    height, width = grey_HW.shape
    sides_px = (width, height, width, height)
    return any(
        bar >= max(2, _LEAST_SHARE * side)
        for bar, side in zip(black_bars_px(grey_HW, marks_HW), sides_px, strict=True)
    )


def _bar_px(lit_shares: np.ndarray) -> int:
    """How many lines from the first on are dark; 0 if all are."""
    return int((lit_shares > _STRAY_SHARE).argmax())


def has_ruler(thin_HW: np.ndarray) -> bool:
    """Whether equal ticks stand at equal distances along the left or the right side.

    Args:
        thin_HW: by how much each pixel outshines both sides of it, see
            :meth:`stdiff.overlays.callipers.Thin.any_HW`.
    """
    strip_px = int(_STRIP_SHARE * thin_HW.shape[1])
    return any(_regular_ticks(strip) for strip in (thin_HW[:, :strip_px], thin_HW[:, -strip_px:]))


def _regular_ticks(strip_HW: np.ndarray) -> bool:
    # In a noisy frame specks are many, and some of many stand at equal distances.
    least_grey = _TICK_GREY + 3 * cv2.mean(strip_HW)[0]
    lit_HW = cv2.threshold(strip_HW, least_grey, 1, cv2.THRESH_BINARY)[1]
    outlines, _ = cv2.findContours(lit_HW, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    if not _LEAST_TICKS <= len(outlines) <= _MOST_SPECKS:
        return False
    boxes_N4 = np.array([cv2.boundingRect(outline) for outline in outlines], int).reshape(-1, 4)
    longest_N = boxes_N4[:, 2:].max(axis=1, initial=0)
    boxes_N4 = boxes_N4[(longest_N >= 2) & (longest_N <= _TICK_PX)]
    if len(boxes_N4) < _LEAST_TICKS:
        return False
    x, y, width, height = boxes_N4.T
    # The middle may move by half a pixel, the sides may differ by one.
    alike_NN = np.ones((len(x), len(x)), bool)
    for form_N, slack in ((2 * x + width, 1), (width, 1), (height, 1)):
        form_N = form_N.astype(np.int16)
        alike_NN &= np.abs(form_N[:, None] - form_N) <= slack
    if alike_NN.sum(axis=1).max() < _LEAST_TICKS:
        return False
    peaks_N = np.array([strip_HW[b : b + h, a : a + w].max() for a, b, w, h in boxes_N4], float)
    alike_NN &= np.abs(peaks_N[:, None] - peaks_N) <= _PEAK_SLACK * peaks_N
    many = alike_NN[alike_NN.sum(axis=1) >= _LEAST_TICKS]
    columns = {column.tobytes(): np.sort((y + height / 2)[column]) for column in many}
    least_reach_px = _LEAST_REACH * len(strip_HW)
    return any(_equally_spaced(middles, least_reach_px) for middles in columns.values())


def _equally_spaced(y_N: np.ndarray, least_reach_px: float) -> bool:
    """Whether at least five of the positions fill most of an arithmetic progression."""
    steps_NN = y_N[None] - y_N[:, None]
    for first, second in zip(*np.nonzero(steps_NN >= _LEAST_STEP_PX), strict=True):
        pace = steps_NN[first, second]
        slots_N = steps_NN[first] / pace
        on_pace = np.abs(slots_N - slots_N.round()) * pace <= _SLACK_PX
        if on_pace.sum() < max(_LEAST_TICKS, _ON_PACE_SHARE * len(y_N)):
            continue
        slots = np.unique(slots_N[on_pace].round())
        reach = slots[-1] - slots[0]
        filled = len(slots) >= max(_LEAST_TICKS, _FILLED_SHARE * (reach + 1))
        if filled and reach * pace >= least_reach_px:
            return True
    return False
