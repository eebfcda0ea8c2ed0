"""Find black bars and the depth scale at the rim of a frame."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np

# ---- bars
# A scanner's black is not always 0, and JPEG smears it.
_BLACK_GREY, _FAINT_GREY = 10, 3  # the second where tissue is nearly as dark
_STRAY_SHARE = 0.02  # of a line may be brighter, so that a speck does not hide a bar
_STEP_PX, _STEP_SHARE = 4, 0.15  # echoes begin within so many lines, on this share of a line
_LEAST_SHARE = 0.02  # of the side; narrower bars are no border
_LINE, _LETTER = np.ones((1, 41), np.uint8), np.ones((9, 9), np.uint8)

# ---- depth scale
_STRIP_SHARE = 0.1
_TICK_GREY = 25
_TICK_PX = 14
_LEAST_TICKS = 5
_LEAST_REACH = 0.4  # of the height, from the first tick to the last
_MOST_SPECKS = 200  # among more specks any pattern can be found
_LEAST_STEP_PX = 10
_SLACK_PX = 1.2
_PEAK_SLACK = 0.35  # of its contrast; equal ticks differ by less
_FILLED_SHARE, _ON_PACE_SHARE = 0.8, 0.7  # of the positions, and of the equal specks


def black_bars_px(
    grey_HW: np.ndarray, marks_HW: Callable[[], np.ndarray]
) -> tuple[int, int, int, int]:
    """Widths in pixels of the bars without echo at the (left, top, right, bottom) rim.

    At the bottom, where echoes fade with depth, a bar must end in a step: gradual darkening is
    tissue. An entirely black frame has no bars.

    Args:
        grey_HW: (height, width) uint8.
        marks_HW: returns the (height, width) boolean map of marks, which count as dark; called
            only if the rim is dark.
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
    """Share of each column and row that is brighter than black and not a mark."""
    lit_HW = cv2.threshold(grey_HW, black_grey, 1, cv2.THRESH_BINARY)[1]
    if marks_HW.any():
        # Closing adds the undetected letters between detected ones.
        line_HW = cv2.morphologyEx(marks_HW.astype(np.uint8), cv2.MORPH_CLOSE, _LINE)
        lit_HW = cv2.subtract(lit_HW, cv2.dilate(line_HW, _LETTER))
    height, width = grey_HW.shape
    columns = cv2.reduce(lit_HW, 0, cv2.REDUCE_SUM, dtype=cv2.CV_32S)[0] / height
    rows = cv2.reduce(lit_HW, 1, cv2.REDUCE_SUM, dtype=cv2.CV_32S)[:, 0] / width
    return columns, rows


def has_black_border(grey_HW: np.ndarray, marks_HW: Callable[[], np.ndarray]) -> bool:
    """Whether a bar takes at least 2 % of the height or width."""
    height, width = grey_HW.shape
    sides_px = (width, height, width, height)
    return any(
        bar >= max(2, _LEAST_SHARE * side)
        for bar, side in zip(black_bars_px(grey_HW, marks_HW), sides_px, strict=True)
    )


def _bar_px(lit_shares: np.ndarray) -> int:
    """Number of dark lines from the first on; 0 if all are dark."""
    return int((lit_shares > _STRAY_SHARE).argmax())


def has_ruler(thin_HW: np.ndarray) -> bool:
    """Whether there are equal, equally spaced ticks along the left or right side.

    Args:
        thin_HW: see :meth:`stdiff.overlays.callipers.Thin.any_HW`.
    """
    strip_px = int(_STRIP_SHARE * thin_HW.shape[1])
    return any(_regular_ticks(strip) for strip in (thin_HW[:, :strip_px], thin_HW[:, -strip_px:]))


def _regular_ticks(strip_HW: np.ndarray) -> bool:
    # Noisy frames have so many specks that some are equally spaced by chance.
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
    # Centres may differ by half a pixel, sides by one pixel.
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
