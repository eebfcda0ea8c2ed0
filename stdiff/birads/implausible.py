"""Masks that no lesion can have: inverted, filled, an outline, specks.

The limits lie far from real masks. Of the 1,977 of BUSI, BUS-BRA and BrEaST the largest covers 58 %
of its frame and the smallest 0.16 % (511 px), none has holes of more than 0.2 % of its area or more
than two specks.
"""

from __future__ import annotations

from collections.abc import Iterator

import cv2
import numpy as np

from stdiff.birads.shape import MIN_AREA_PX

MAX_AREA_FRACTION = 0.8
# Its pixels over those with its holes filled.
_MIN_FILLED = 0.8
# Radius of the largest disc within a lesion, over that of a disc of its convex hull's area.
_MIN_THICKNESS = 0.2
_MIN_LESION_FRACTION = 2e-4
_MAX_SPECKS = 3


def mask_doubts(mask_HW: np.ndarray) -> list[str]:
    """Why a mask at native geometry cannot be a lesion's; empty if it can be.

    Args:
        mask_HW: (height, width) bool. An empty mask raises no doubt.
    """
    if not mask_HW.any():
        return []
    return [*frame_doubts(mask_HW), *_outline_doubts(mask_HW), *_speck_doubts(mask_HW)]


def frame_doubts(mask_HW: np.ndarray) -> list[str]:
    """Those of :func:`mask_doubts` that also hold for a mask of few pixels."""
    covered = mask_HW.mean()
    corners = [mask_HW[y, x] for y in (0, -1) for x in (0, -1)]
    if covered > MAX_AREA_FRACTION or all(corners):
        where = " and all four corners: inverted?" if all(corners) else ""
        return [f"covers {100 * covered:.0f} % of the image{where}"]
    return []


def _outline_doubts(mask_HW: np.ndarray) -> Iterator[str]:
    """An outline encloses more than it covers, or, if it is open, is thin."""
    mask = np.pad(mask_HW.astype(np.uint8), 1)
    contours, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    filled = cv2.drawContours(np.zeros_like(mask), contours, -1, 1, cv2.FILLED)
    hull = cv2.convexHull(max(contours, key=len))
    # The contour runs through the centres of pixels, half a pixel within their edge.
    area_px = cv2.contourArea(hull) + cv2.arcLength(hull, closed=True) / 2 + 1
    radius_px = np.sqrt(area_px / np.pi)
    thickness_px = cv2.distanceTransform(mask, cv2.DIST_L2, 5).max()
    if mask.sum() < _MIN_FILLED * filled.sum() or thickness_px < _MIN_THICKNESS * radius_px:
        yield "is an outline or a line, not an area"


def _speck_doubts(mask_HW: np.ndarray) -> Iterator[str]:
    """A lesion smaller than any, or many specks."""
    count, _, stats, _ = cv2.connectedComponentsWithStats(mask_HW.astype(np.uint8), connectivity=8)
    areas_px = stats[1:count, cv2.CC_STAT_AREA]
    smallest_px = max(MIN_AREA_PX, _MIN_LESION_FRACTION * mask_HW.size)
    specks = int((areas_px < MIN_AREA_PX).sum())
    if areas_px.max() < smallest_px:
        yield f"has no area of {smallest_px:.0f} px or more, its largest is {areas_px.max()} px"
    elif specks > _MAX_SPECKS:
        yield f"holds {specks} specks of fewer than {MIN_AREA_PX} px"
