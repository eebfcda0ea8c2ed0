"""Find the echo image on a screen."""

from __future__ import annotations

import numpy as np

from stdiff.overlays.borders import black_bars_px
from stdiff.overlays.detection import find_marks

_LEAST_SHARE = 0.25  # of a side; a smaller rest is no frame


def sector_box(
    grey_HW: np.ndarray, mask_HW: np.ndarray | None = None, marks_HW: np.ndarray | None = None
) -> tuple[int, int, int, int]:
    """(left, top, right, bottom) of the echo image in native pixels, right and bottom exclusive.

    Only lines at the rim with nothing but black and text are cut off, never one with tissue. At
    the bottom they must end in a step, since tissue may fade to black. The whole frame is returned
    if it has no surround or if less than a quarter of a side would be left.

    Args:
        grey_HW: (height, width) uint8.
        mask_HW: the lesion, boolean or 0 and 255; the box contains all of it.
        marks_HW: see :class:`stdiff.overlays.detection.Marks`; computed if None.
    """
    height, width = grey_HW.shape
    whole = (0, 0, width, height)
    bars = black_bars_px(
        grey_HW, lambda: find_marks(grey_HW).mask_HW if marks_HW is None else marks_HW
    )
    left, top, right, bottom = bars[0], bars[1], width - bars[2], height - bars[3]
    if right - left < _LEAST_SHARE * width or bottom - top < _LEAST_SHARE * height:
        return whole
    if mask_HW is not None and mask_HW.any():
        rows, columns = (np.flatnonzero(mask_HW.any(axis=axis)) for axis in (1, 0))
        left, right = min(left, int(columns[0])), max(right, int(columns[-1]) + 1)
        top, bottom = min(top, int(rows[0])), max(bottom, int(rows[-1]) + 1)
    return left, top, right, bottom
