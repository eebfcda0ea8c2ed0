"""Bright spots inside a lesion, as calcifications are seen.

BI-RADS Atlas, 5th ed., ultrasound lexicon, D. Calcifications: echogenic foci that are
"conspicuous" within a hypoechoic mass. An image alone cannot tell them from other bright
reflectors, so the term is given only where several stand out; never that there are none.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from stdiff.birads.acoustics import Surroundings

# Above the mean about them: 10 dB at the usual 60 dB dynamic range, and far above the speckle,
# whose peaks reach 3 to 4 deviations in a lesion of real frames.
CONSPICUOUS_GREY = 42.0
CONSPICUOUS_DEVIATIONS = 5.5
# As many as make a group of calcifications (BI-RADS, mammography lexicon: 5 within 1 cm).
CONVINCING_SPOTS = 5

# In units of sqrt(area): what a spot is compared with, and the largest spot.
_ABOUT, _SPOT = 0.3, 0.12
_MIN_PX = 2


@dataclass(frozen=True)
class BrightSpots:
    """Spots of the largest lesion.

    Attributes:
        count: conspicuous small bright spots off the rim, those on one straight line left out.
        convincing: there are enough to be called calcifications.
    """

    count: int
    convincing: bool


def bright_spots(around: Surroundings) -> BrightSpots:
    """Count conspicuous bright spots inside a lesion, off its rim, where walls and callipers lie.

    A spot stands out of the lesion about it (mean over a third of its size) by
    :data:`CONSPICUOUS_GREY` and :data:`CONSPICUOUS_DEVIATIONS` of the speckle. The dots of a
    burnt-in measuring line share a row or a column with three others or more and do not count.
    """
    top, bottom, left, right = around.box
    box = np.s_[top:bottom, left:right]
    cell_px = around.cell_px
    pixels = around.pixels[top * cell_px : bottom * cell_px, left * cell_px : right * cell_px]
    weight = np.ascontiguousarray(around.core[box]).astype(np.float32)
    side = 2 * round(_ABOUT * around.size / 2) + 1
    about = cv2.blur(around.grey[box] * weight, (side, side))
    about /= np.maximum(cv2.blur(weight, (side, side)), 1e-6)
    size_px = pixels.shape[::-1]
    about_px = cv2.resize(cv2.convertScaleAbs(about), size_px, interpolation=cv2.INTER_LINEAR)
    core_px = cv2.resize(weight.astype(np.uint8), size_px, interpolation=cv2.INTER_NEAREST)
    # Spread of the dark side alone, which bright spots do not touch.
    mean, deviation = (
        float(v[0, 0]) for v in cv2.meanStdDev(cv2.subtract(about_px, pixels), mask=core_px)
    )
    spread = np.sqrt(2 * (mean**2 + deviation**2))
    above = max(CONSPICUOUS_GREY, CONSPICUOUS_DEVIATIONS * spread)
    bright = cv2.compare(cv2.subtract(pixels, about_px), above, cv2.CMP_GT) & (
        core_px * np.uint8(255)
    )
    x, y, width, height = cv2.boundingRect(bright)
    if not width:
        return BrightSpots(0, False)
    _, _, statistics, centres = cv2.connectedComponentsWithStats(
        bright[y : y + height, x : x + width]
    )
    sizes_px = statistics[1:, cv2.CC_STAT_AREA]
    largest_px = max(12.0, (_SPOT * around.size * cell_px) ** 2)
    small = (sizes_px >= _MIN_PX) & (sizes_px <= largest_px)
    spots_N2 = centres[1:][small]
    kept = len(spots_N2) - _on_measuring_lines(spots_N2)
    return BrightSpots(kept, kept >= CONVINCING_SPOTS)


def _on_measuring_lines(spots_N2: np.ndarray) -> int:
    """Spots that share a row or a column, within a pixel, with three others or more."""
    on_line = np.zeros(len(spots_N2), dtype=bool)
    for axis in (0, 1):
        apart = np.abs(spots_N2[:, None, axis] - spots_N2[None, :, axis])
        on_line |= (apart <= 1).sum(axis=1) >= 4
    return int(on_line.sum())
