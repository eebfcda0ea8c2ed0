"""Inpaint callipers and text."""

from __future__ import annotations

import cv2
import numpy as np

MARGIN_PX = 2  # antialiased and dark rims of what was drawn
_RADIUS_PX = 3


def without_marks(grey_HW: np.ndarray, marks_HW: np.ndarray) -> np.ndarray:
    """A copy of a frame with its marks inpainted.

    Pixels farther than :data:`MARGIN_PX` from a mark are unchanged. The others are smooth and have
    no speckle, so do not measure texture there. Method: fast marching, Telea, J. Graphics Tools
    2004; on simulated frames the error of Navier-Stokes differed by less than 2 %.

    Args:
        grey_HW: (height, width) uint8.
        marks_HW: (height, width) boolean, see :class:`stdiff.overlays.detection.Marks`.
    """
    side = 2 * MARGIN_PX + 1
    painted_HW = cv2.dilate(marks_HW.astype(np.uint8), np.ones((side, side), np.uint8))
    if not painted_HW.any() or painted_HW.all():
        return grey_HW.copy()
    return cv2.inpaint(grey_HW, painted_HW, _RADIUS_PX, cv2.INPAINT_TELEA)
