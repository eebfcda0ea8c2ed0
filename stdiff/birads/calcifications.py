"""Bright spots inside a lesion, which calcifications look like.

BI-RADS Atlas, 5th ed., ultrasound lexicon, D. Calcifications: echogenic foci that are
"conspicuous" within a hypoechoic mass. An image does not distinguish them from other bright
reflectors, so the term is given only for several spots, and "none" never.
"""

from __future__ import annotations

import cv2
import numpy as np

from stdiff.birads.acoustics import Surroundings

# Minimum height above the local mean: 10 dB at the usual 60 dB dynamic range. Speckle peaks of
# lesions in real frames reach 3 to 4 standard deviations.
CONSPICUOUS_GREY = 42.0
CONSPICUOUS_DEVIATIONS = 5.5
# A group of calcifications (BI-RADS, mammography lexicon: 5 within 1 cm).
MIN_SPOTS = 5

# Side of the window of the local mean, and of the largest spot, in units of sqrt(area).
_WINDOW, _SPOT = 0.3, 0.12
_MIN_PX = 2


def count_bright_spots(around: Surroundings) -> int:
    """Number of conspicuous bright spots inside a lesion, off its rim (walls, callipers).

    A spot is brighter than the local mean by :data:`CONSPICUOUS_GREY` and by
    :data:`CONSPICUOUS_DEVIATIONS` of the speckle. Dots of a burnt-in measuring line, which share a
    row or a column with three others or more, do not count.
    """
    top, bottom, left, right = around.box
    box = np.s_[top:bottom, left:right]
    cell_px = around.cell_px
    pixels = around.pixels[top * cell_px : bottom * cell_px, left * cell_px : right * cell_px]
    weight = np.ascontiguousarray(around.core[box]).astype(np.float32)
    side = 2 * round(_WINDOW * around.size / 2) + 1
    local = cv2.blur(around.grey[box] * weight, (side, side))
    local /= np.maximum(cv2.blur(weight, (side, side)), 1e-6)
    size_px = pixels.shape[::-1]
    local_px = cv2.resize(cv2.convertScaleAbs(local), size_px, interpolation=cv2.INTER_LINEAR)
    core_px = cv2.resize(weight.astype(np.uint8), size_px, interpolation=cv2.INTER_NEAREST)
    # Spread below the local mean, which bright spots do not change.
    mean, deviation = (
        float(v[0, 0]) for v in cv2.meanStdDev(cv2.subtract(local_px, pixels), mask=core_px)
    )
    spread = np.sqrt(2 * (mean**2 + deviation**2))
    above = max(CONSPICUOUS_GREY, CONSPICUOUS_DEVIATIONS * spread)
    bright = cv2.compare(cv2.subtract(pixels, local_px), above, cv2.CMP_GT) & (
        core_px * np.uint8(255)
    )
    x, y, width, height = cv2.boundingRect(bright)
    if not width:
        return 0
    _, _, statistics, centres = cv2.connectedComponentsWithStats(
        bright[y : y + height, x : x + width]
    )
    sizes_px = statistics[1:, cv2.CC_STAT_AREA]
    largest_px = max(12.0, (_SPOT * around.size * cell_px) ** 2)
    small = (sizes_px >= _MIN_PX) & (sizes_px <= largest_px)
    spots_N2 = centres[1:][small]
    return len(spots_N2) - _on_measuring_lines(spots_N2)


def _on_measuring_lines(spots_N2: np.ndarray) -> int:
    """Number of spots that share a row or a column, within a pixel, with three others or more."""
    on_line = np.zeros(len(spots_N2), dtype=bool)
    for axis in (0, 1):
        apart = np.abs(spots_N2[:, None, axis] - spots_N2[None, :, axis])
        on_line |= (apart <= 1).sum(axis=1) >= 4
    return int(on_line.sum())
