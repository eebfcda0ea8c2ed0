"""Callipers and text taken out of a frame."""

from __future__ import annotations

import cv2
import numpy as np

MARGIN_PX = 2  # antialiased and dark rims of what was drawn
_RADIUS_PX = 3


def without_marks(grey_HW: np.ndarray, marks_HW: np.ndarray) -> np.ndarray:
    """A copy of a frame in which marks are painted over from their surroundings.

    Pixels farther than :data:`MARGIN_PX` from a mark stay as they are, bit for bit. The others are
    smooth: they carry no speckle, so do not measure texture there. Fast marching of Telea (J.
    Graphics Tools 2004); Navier-Stokes errs as much on simulated frames, within 2 %.

    Args:
        grey_HW: (height, width) uint8.
        marks_HW: (height, width) boolean, see :class:`stdiff.overlays.detection.Marks`.
    """
    side = 2 * MARGIN_PX + 1
    painted_HW = cv2.dilate(marks_HW.astype(np.uint8), np.ones((side, side), np.uint8))
    if not painted_HW.any() or painted_HW.all():
        return grey_HW.copy()
    return cv2.inpaint(grey_HW, painted_HW, _RADIUS_PX, cv2.INPAINT_TELEA)
