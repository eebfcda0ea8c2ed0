"""Places a lesion's outline within the image, or across one of its sides."""

from __future__ import annotations

import numpy as np


def moved_inside(curve: np.ndarray, height_px: int, width_px: int) -> np.ndarray:
    """The curve (complex, pixels), moved as little as leaves a pixel to every side.

    A curve that is too large for that is centred.
    """
    return curve + complex(
        _inside(curve.real.min(), curve.real.max(), width_px),
        _inside(curve.imag.min(), curve.imag.max(), height_px),
    )


def cut_off(
    curve: np.ndarray, side: str, contact_fraction: float, height_px: int, width_px: int
) -> np.ndarray:
    """The curve moved across one side of the image.

    The contact is a fraction of the extent along the side: an ellipse of extent 1 that is cut off
    by d has a chord of 2 √(d (1 − d)). At least a pixel is cut off.
    """
    cut = (1 - np.sqrt(1 - contact_fraction**2)) / 2
    along = curve.real if side in ("left", "right") else curve.imag
    low, high = along.min(), along.max()
    cut_px = max(cut * (high - low), 1.0)
    if side in ("left", "top"):
        shift = -low - cut_px
    else:
        shift = (width_px if side == "right" else height_px) - high + cut_px
    return curve + (shift if side in ("left", "right") else 1j * shift)


def _inside(low: float, high: float, size_px: int) -> float:
    """The smallest shift of a span [low, high] that leaves a pixel to both sides."""
    if high - low > size_px - 2:
        return (size_px - low - high) / 2
    return max(0.0, 1 - low) - max(0.0, high - (size_px - 1))
