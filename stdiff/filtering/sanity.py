"""Are the grey levels of an image those of an ultrasound frame? Saturation, contrast, seams."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from stdiff.config.generator import GateConfig
from stdiff.diffusion.decoupling import soft_gate

# From here on a pixel is white on the screen.
WHITE_GREY = 250
# The decoupling gate's contours where a seam may be: where the gate ends (a background that
# is kept is put back there) and where it falls fastest.
_CONTOURS = (0.0, 0.5)
# Distances from a contour: what counts as on it, and the bands on both sides it is compared with.
_ON_PX, _BESIDE_PX = 1.0, (2.0, 5.0)
_LESION_RIM_PX = 2.0
_FEWEST_PX = 8


def saturated_fraction(image_HW: np.ndarray) -> float:
    """Share of pixels that are white, in [0, 1]."""
    return float(np.mean(image_HW >= WHITE_GREY))


def contrast_grey(image_HW: np.ndarray) -> float:
    """Standard deviation of the grey levels; 0 of a blank image."""
    return float(image_HW.std(dtype=np.float64))


def seam(image_HW: np.ndarray, mask_HW: np.ndarray, gate: GateConfig) -> float | None:
    """How much stronger the grey level changes across the decoupling gate's edge than beside it.

    The mean slope across a contour of the gate over that in bands 2 to 5 px on either side, all in
    the direction across it and off the lesion, whose own margin is an edge; the larger of the
    contours where the gate is 0 and a half. Of real images about 1.

    Args:
        image_HW: uint8.
        mask_HW: non-zero on the lesion.
        gate: the decoupling gate of the model that made the image.

    Returns:
        The ratio, >= 0; None where there is no gate, or no room beside its edge.
    """
    if gate.everywhere:
        return None
    gate_HW = soft_gate(mask_HW, gate)
    off_lesion = ndimage.distance_transform_edt(mask_HW == 0) > _LESION_RIM_PX
    # Slopes at the frame's border are one-sided.
    off_lesion[[0, -1]] = off_lesion[:, [0, -1]] = False
    slopes = np.gradient(image_HW.astype(np.float32))
    ratios = [_across(slopes, gate_HW > level, off_lesion) for level in _CONTOURS]
    return max((ratio for ratio in ratios if ratio is not None), default=None)


def _across(slopes: list[np.ndarray], region_HW: np.ndarray, where_HW: np.ndarray) -> float | None:
    """Slope across the border of a region over that beside it."""
    if region_HW.all() or not region_HW.any():
        return None
    outside_px = ndimage.distance_transform_edt(~region_HW)
    outside_px -= ndimage.distance_transform_edt(region_HW)
    y, x = np.gradient(ndimage.gaussian_filter(outside_px, 1.0))
    across = np.abs(slopes[0] * y + slopes[1] * x) / np.maximum(np.hypot(y, x), 1e-6)
    distance_px = np.abs(outside_px)
    on = where_HW & (distance_px <= _ON_PX)
    beside = where_HW & (distance_px > _BESIDE_PX[0]) & (distance_px <= _BESIDE_PX[1])
    if min(on.sum(), beside.sum()) < _FEWEST_PX:
        return None
    # One grey level a pixel is no slope: a blank image has no seam.
    return float(across[on].mean() / (across[beside].mean() + 1))
