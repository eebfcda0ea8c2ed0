"""BI-RADS descriptors that image and mask tell by themselves, at native geometry.

They fill columns nobody annotated and are never marked annotated. All describe the largest
component of the mask. Grey levels of an ultrasound image are log-compressed, so a difference of
grey levels is a ratio of echo amplitudes whatever the gain: 15 of 255 levels are about 3.5 dB at
the usual 60 dB dynamic range, a difference a reader sees.
"""

from __future__ import annotations

import numpy as np
from scipy import ndimage
from scipy.spatial import ConvexHull, QhullError

VISIBLE_GREY = 15.0
# Below this mean a lesion is black on the screen.
ANECHOIC_GREY = 20.0
IRREGULAR_SOLIDITY = 0.90
ROUND_AXIS_RATIO = 0.85
# Fewer pixels have no shape to speak of.
MIN_AREA_PX = 20


def components(mask_HW: np.ndarray) -> tuple[np.ndarray, int]:
    """Mask of the largest 8-connected component, and the number of components.

    Args:
        mask_HW: (height, width) bool.
    """
    labels, count = ndimage.label(mask_HW, structure=np.ones((3, 3)))
    if count == 0:
        return np.zeros_like(mask_HW), 0
    return labels == 1 + int(np.argmax(np.bincount(labels.ravel())[1:])), count


def derived_terms(image_HW: np.ndarray, mask_HW: np.ndarray) -> dict[str, str]:
    """Lexicon terms by column; a column that cannot be told is absent.

    Args:
        image_HW: (height, width) uint8 grey levels with square pixels.
        mask_HW: (height, width) bool, several lesions allowed.
    """
    lesion_HW, count = components(mask_HW)
    if count == 0 or lesion_HW.sum() < MIN_AREA_PX:
        return {}
    terms = {
        "shape": shape(lesion_HW),
        "orientation": orientation(lesion_HW),
        "echo_pattern": echo_pattern(image_HW, lesion_HW, mask_HW),
        "posterior_features": posterior_features(image_HW, lesion_HW, mask_HW),
    }
    return {column: term for column, term in terms.items() if term is not None}


def orientation(lesion_HW: np.ndarray) -> str:
    """Parallel to the skin if the long axis is within 45 degrees of it (wider than tall).

    The principal axis of the second moments lies within 45 degrees of the horizontal exactly when
    the horizontal variance exceeds the vertical one.
    """
    ys, xs = np.nonzero(lesion_HW)
    return "parallel" if xs.var() > ys.var() else "not parallel"


def shape(lesion_HW: np.ndarray) -> str:
    """Irregular if less than 90 % of the convex hull is filled, else round or oval by its axes."""
    ys, xs = np.nonzero(lesion_HW)
    if xs.size / _hull_area_px(lesion_HW) < IRREGULAR_SOLIDITY:
        return "irregular"
    minor, major = np.sqrt(np.linalg.eigvalsh(np.cov(xs, ys)))
    return "round" if minor >= ROUND_AXIS_RATIO * major else "oval"


def _hull_area_px(lesion_HW: np.ndarray) -> float:
    """Area of the convex hull of the pixels as unit squares."""
    rows = np.flatnonzero(lesion_HW.any(axis=1))
    columns = lesion_HW[rows]
    # Each row's outermost pixels span the hull.
    first = columns.argmax(axis=1)
    last = columns.shape[1] - columns[:, ::-1].argmax(axis=1)
    ends = [
        (x, y + dy) for dy in (0, 1) for xs in (first, last) for x, y in zip(xs, rows, strict=True)
    ]
    try:
        return ConvexHull(np.array(ends, dtype=float)).volume  # in 2-D, "volume" is the area
    except QhullError:
        return float(lesion_HW.sum())


def echo_pattern(image_HW: np.ndarray, lesion_HW: np.ndarray, mask_HW: np.ndarray) -> str | None:
    """Lesion against the tissue left and right of it, row by row, so at equal depth.

    In each row half a lesion's width on either side is compared; rows count by their lesion
    pixels. None when there is no tissue beside the lesion.
    """
    top, bottom, left, right = _bounds(lesion_HW)
    reach = max(2, (right - left) // 2)
    window = np.s_[top:bottom, max(0, left - reach) : right + reach]
    image, lesion = image_HW[window].astype(float), lesion_HW[window]
    tissue = ~mask_HW[window]
    usable = lesion.any(axis=1) & tissue.any(axis=1)
    if not usable.any():
        return None
    image, lesion, tissue = image[usable], lesion[usable], tissue[usable]
    weights = lesion.sum(axis=1)
    inside = (image * lesion).sum() / weights.sum()
    beside = np.average((image * tissue).sum(axis=1) / tissue.sum(axis=1), weights=weights)
    if inside - beside > VISIBLE_GREY:
        return "hyperechoic"
    if inside - beside >= -VISIBLE_GREY:
        return "isoechoic"
    return "anechoic" if inside <= ANECHOIC_GREY else "hypoechoic"


def posterior_features(
    image_HW: np.ndarray, lesion_HW: np.ndarray, mask_HW: np.ndarray
) -> str | None:
    """Column beneath the lesion against its neighbours at equal depth.

    The column is the middle half of the lesion's width (its edges cast refractive shadows of
    their own), one lesion's height deep or to the image's end; the neighbours are half a width
    on either side. None where the image ends too soon below or there is nothing beside.
    """
    top, bottom, left, right = _bounds(lesion_HW)
    height, width = bottom - top, right - left
    rows = slice(bottom, min(bottom + height, image_HW.shape[0]))
    if rows.stop - rows.start < max(4, height // 4):
        return None
    tissue = ~mask_HW[rows]
    column = np.zeros_like(tissue)
    column[:, left + width // 4 : right - width // 4] = True
    beside = np.zeros_like(tissue)
    beside[:, max(0, left - width // 2) : left] = True
    beside[:, right : right + width // 2] = True
    beneath_grey, beside_grey = image_HW[rows][column & tissue], image_HW[rows][beside & tissue]
    if beneath_grey.size == 0 or beside_grey.size == 0:
        return None
    difference = float(beneath_grey.mean() - beside_grey.mean())
    if difference > VISIBLE_GREY:
        return "enhancement"
    return "shadowing" if difference < -VISIBLE_GREY else "no posterior features"


def _bounds(lesion_HW: np.ndarray) -> tuple[int, int, int, int]:
    """Top, bottom, left, right, the ends exclusive."""
    rows, columns = (np.flatnonzero(lesion_HW.any(axis=axis)) for axis in (1, 0))
    return int(rows[0]), int(rows[-1]) + 1, int(columns[0]), int(columns[-1]) + 1
