"""Shape descriptors of a lesion mask, at the geometry of the mask as given.

Width and height come from the second moments, which a single stray pixel hardly moves: for an
ellipse with semi-axes a (along x) and b (along y) the standard deviations are a/2 and b/2.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage
from skimage.morphology import convex_hull_image

# An outline with more than a tenth of its convex hull missing is lobed or spiculated.
IRREGULAR_BELOW_SOLIDITY = 0.9
# Short over long axis above which an outline is called round, not oval.
ROUND_ABOVE_AXIS_RATIO = 0.85

_EIGHT_NEIGHBOURS = np.ones((3, 3), dtype=bool)


@dataclass(frozen=True)
class Shape:
    """Descriptors of the largest lesion of a mask.

    Attributes:
        area_fraction: its pixels over all pixels, in (0, 1].
        aspect: height over width (standard deviations along y and x), > 0.
        axis_ratio: short over long principal axis, in (0, 1].
        solidity: its pixels over those in its convex hull, in (0, 1]; 1 for any digitised convex
            outline, however small.
        centroid: (x, y) as fractions of width and height, in (0, 1).
        orientation: "parallel" (to the skin: the long axis lies within 45° of the horizontal) or
            "not parallel".
        shape: "oval", "round" or "irregular".
    """

    area_fraction: float
    aspect: float
    axis_ratio: float
    solidity: float
    centroid: tuple[float, float]
    orientation: str
    shape: str


def count_lesions(mask_HW: np.ndarray) -> int:
    """Number of 8-connected components above zero."""
    return int(ndimage.label(mask_HW > 0, structure=_EIGHT_NEIGHBOURS)[1])


def largest_lesion(mask_HW: np.ndarray) -> np.ndarray:
    """The largest 8-connected component as a boolean array; all False for an empty mask."""
    labels_HW, count = ndimage.label(mask_HW > 0, structure=_EIGHT_NEIGHBOURS)
    if count <= 1:
        return labels_HW > 0
    return labels_HW == 1 + np.argmax(np.bincount(labels_HW.ravel())[1:])


def measure(mask_HW: np.ndarray) -> Shape:
    """Descriptors of the largest lesion of a mask (any dtype, above zero = lesion).

    Raises:
        ValueError: the mask holds no lesion.
    """
    lesion_HW = largest_lesion(mask_HW)
    ys, xs = np.nonzero(lesion_HW)
    if not len(ys):
        raise ValueError("the mask holds no lesion to measure")
    # A pixel is a unit square with a variance of 1/12 of its own: no division by zero below.
    covariance = np.cov(np.stack([xs, ys]), bias=True) + np.eye(2) / 12
    short, long = np.linalg.eigvalsh(covariance)
    aspect = float(np.sqrt(covariance[1, 1] / covariance[0, 0]))
    axis_ratio = float(np.sqrt(short / long))
    solidity = _solidity(lesion_HW[ys.min() : ys.max() + 1, xs.min() : xs.max() + 1], short)
    if solidity < IRREGULAR_BELOW_SOLIDITY:
        shape = "irregular"
    else:
        shape = "round" if axis_ratio > ROUND_ABOVE_AXIS_RATIO else "oval"
    height_px, width_px = mask_HW.shape
    return Shape(
        area_fraction=len(ys) / mask_HW.size,
        aspect=aspect,
        axis_ratio=axis_ratio,
        solidity=solidity,
        centroid=(float(xs.mean() + 0.5) / width_px, float(ys.mean() + 0.5) / height_px),
        # aspect <= 1 says just that: var_x - var_y = (long - short) cos(2 angle of the long axis).
        # The tolerance makes a disc parallel, whatever the rounding of its sums.
        orientation="parallel" if aspect <= 1 + 1e-9 else "not parallel",
        shape=shape,
    )


def _solidity(lesion_HW: np.ndarray, short_variance: float) -> float:
    """Lesion pixels over the pixels whose centre lies in the hull of the lesion's pixel centres."""
    if short_variance < 1 / 12 + 1e-6:
        # All centres on one line: there is no hull to fill.
        return 1.0
    hull_HW = convex_hull_image(lesion_HW, offset_coordinates=False)
    return float(lesion_HW.sum() / (hull_HW | lesion_HW).sum())
