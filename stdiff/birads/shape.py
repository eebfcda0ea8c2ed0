"""Shape descriptors of a lesion mask, at the geometry of the mask as given.

Width and height come from second moments, which hardly depend on a single stray pixel: an ellipse
with semi-axes a (along x) and b (along y) has the standard deviations a/2 and b/2. Measures of the
outline come from one smooth closed curve, :mod:`stdiff.birads.outline`, so that no number but
``area_fraction`` depends on the pixel size for lesions of :data:`MIN_AREA_PX` or more.

Terms: ACR BI-RADS Atlas, 5th ed. (2013), ultrasound lexicon, B. Masses.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from stdiff.birads.outline import Outline, edge_pixels, ellipse_energy, measure_outline

# Minimum size of a lesion with an outline.
MIN_AREA_PX = 20
# Coarse curvature energy over that of the ellipse of equal axes; an egg, or an oval with "two or
# three undulations" (BI-RADS), stays below.
IRREGULAR_ABOVE_ENERGY = 1.4
# Short over long axis.
ROUND_ABOVE_AXIS_RATIO = 0.85

# Limits of the margins visible in a mask; outlines in the gaps between them get no term.
_FEW_NOTCHES, _MANY_NOTCHES = 2, 7
# Curvature energy over that of the ellipse of equal axes.
_SMOOTH_ENERGY, _CORNERS_ENERGY, _SPICULES_ENERGY = 2.75, 2.0, 45.0
_SMALL_LOBES_ENERGY = (5.0, 30.0)
# Straight fraction of the outline.
_STRAIGHT_SIDES, _HARDLY_STRAIGHT = 0.42, 0.36


@dataclass(frozen=True)
class Shape:
    """Descriptors of the largest lesion of a mask; those of the outline are None for a speck.

    Attributes:
        area_fraction: its pixels over all pixels of the frame, in (0, 1].
        aspect: height over width (standard deviations along y and x), > 0.
        axis_ratio: short over long principal axis, in (0, 1].
        solidity: its pixels over those in its convex hull, in (0, 1]; 1 for a convex outline.
        centroid: (x, y) as fractions of width and height, in (0, 1).
        orientation: "parallel" (long axis within 45° of the horizontal) or "not parallel".
        shape: "round", "oval" or "irregular", see :func:`shape_term`.
        compactness: 4 pi area / perimeter^2 (Cox 1927), in (0, 1]; 1 for a disc.
        curvature_energy: perimeter / (4 pi^2) times the integral of the squared curvature, >= 1;
            1 for a circle (bending energy of Young et al. 1974, independent of scale).
        lobulations: notches between bulges, 0 for a convex outline.
        margin: "circumscribed", "microlobulated", "angular" or "spiculated", None if unclear; see
            :func:`margin_term`.
    """

    area_fraction: float
    aspect: float
    axis_ratio: float
    solidity: float
    centroid: tuple[float, float]
    orientation: str
    shape: str
    compactness: float | None = None
    curvature_energy: float | None = None
    lobulations: int | None = None
    margin: str | None = None


def count_lesions(mask_HW: np.ndarray) -> int:
    """Number of 8-connected components above zero."""
    return largest_and_count(mask_HW)[1]


def largest_lesion(mask_HW: np.ndarray) -> np.ndarray:
    """The largest 8-connected component as a boolean array; all False for an empty mask."""
    return largest_and_count(mask_HW)[0]


def largest_and_count(mask_HW: np.ndarray) -> tuple[np.ndarray, int]:
    """The largest 8-connected component as a boolean array, and the number of components."""
    bytes_HW = _as_bytes(mask_HW)
    window = bounding_box(bytes_HW)
    contours, hierarchy = cv2.findContours(
        bytes_HW[window], cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE
    )
    # In a two-level hierarchy components have no parent; the rest are holes.
    count = int((hierarchy[0, :, 3] < 0).sum()) if contours else 0
    if count <= 1:
        return bytes_HW.view(np.bool_), count
    _, labels, statistics, _ = cv2.connectedComponentsWithStats(bytes_HW[window], connectivity=8)
    lesion_HW = np.zeros(mask_HW.shape, dtype=bool)
    lesion_HW[window] = labels == 1 + int(np.argmax(statistics[1:, cv2.CC_STAT_AREA]))
    return lesion_HW, count


def components(mask_HW: np.ndarray) -> list[np.ndarray]:
    """Each 8-connected component above zero as a (height, width) boolean array."""
    count, labels = cv2.connectedComponents(_as_bytes(mask_HW), connectivity=8)
    return [labels == number for number in range(1, count)]


def touches_border(lesion_HW: np.ndarray) -> bool:
    """Whether a (height, width) lesion reaches the edge of the frame."""
    edges = (lesion_HW[0], lesion_HW[-1], lesion_HW[:, 0], lesion_HW[:, -1])
    return any(edge.any() for edge in edges)


def measure(mask_HW: np.ndarray) -> Shape:
    """Descriptors of the largest lesion of a mask (any dtype, above zero = lesion).

    Raises:
        ValueError: the mask holds no lesion.
    """
    return measure_lesion(largest_lesion(mask_HW))


def measure_lesion(lesion_HW: np.ndarray) -> Shape:
    """Descriptors of a (height, width) bool mask of one lesion, see :func:`measure`."""
    window = bounding_box(lesion_HW)
    lesion = np.ascontiguousarray(lesion_HW[window]).view(np.uint8)
    if not lesion.size:
        raise ValueError("the mask holds no lesion to measure")
    moments = cv2.moments(lesion, binaryImage=True)
    area_px = moments["m00"]
    aspect, axis_ratio = _axes(moments)
    edge_N2 = edge_pixels(lesion)
    has_outline = area_px >= MIN_AREA_PX and min(lesion.shape) > 2
    outline = measure_outline(lesion, edge_N2) if has_outline else None
    height_px, width_px = lesion_HW.shape
    return Shape(
        area_fraction=area_px / lesion_HW.size,
        aspect=aspect,
        axis_ratio=axis_ratio,
        solidity=min(1.0, area_px / _hull_pixels(edge_N2)),
        centroid=(
            (window[1].start + moments["m10"] / area_px + 0.5) / width_px,
            (window[0].start + moments["m01"] / area_px + 0.5) / height_px,
        ),
        # var_x - var_y = (long - short) cos(2 angle of the long axis), so parallel is aspect <= 1.
        # The tolerance makes a disc parallel despite rounding.
        orientation="parallel" if aspect <= 1 + 1e-9 else "not parallel",
        shape=shape_term(axis_ratio, outline),
        compactness=outline.compactness if outline else None,
        curvature_energy=outline.curvature_energy if outline else None,
        lobulations=outline.lobulations if outline else None,
        margin=margin_term(outline, axis_ratio) if outline else None,
    )


def shape_term(axis_ratio: float, outline: Outline | None) -> str:
    """BI-RADS shape: oval is "elliptical or egg-shaped", round "spherical", irregular neither.

    Irregular: after margin detail is smoothed away, the outline has more than
    :data:`IRREGULAR_ABOVE_ENERGY` times the curvature energy of the ellipse of equal axes. Else
    round above :data:`ROUND_ABOVE_AXIS_RATIO`, or oval. A speck (outline None) is round or oval.
    """
    if outline and outline.coarse_energy > IRREGULAR_ABOVE_ENERGY * ellipse_energy(axis_ratio):
        return "irregular"
    return "round" if axis_ratio > ROUND_ABOVE_AXIS_RATIO else "oval"


def margin_term(outline: Outline, axis_ratio: float) -> str | None:
    """BI-RADS margin of an outline; None if unclear.

    Spiculated ("sharp lines radiating") and microlobulated ("short cycle undulations") outlines
    have many notches, sharp or round; angular ("sharp corners") ones have straight sides and few
    notches; circumscribed ones bend like an ellipse. A mask does not show an indistinct margin.
    """
    energy = outline.curvature_energy / ellipse_energy(axis_ratio)
    if outline.lobulations >= _MANY_NOTCHES:
        if energy > _SPICULES_ENERGY:
            return "spiculated"
        low, high = _SMALL_LOBES_ENERGY
        return "microlobulated" if low < energy < high else None
    if outline.lobulations <= _FEW_NOTCHES:
        has_corners = energy > _CORNERS_ENERGY
        if has_corners and outline.straight_fraction > _STRAIGHT_SIDES:
            return "angular"
        nearly_angular = has_corners and outline.straight_fraction > _HARDLY_STRAIGHT
        if energy < _SMOOTH_ENERGY and not nearly_angular:
            return "circumscribed"
    return None


def _axes(moments: dict[str, float]) -> tuple[float, float]:
    """(aspect, axis ratio) of an area; see :class:`Shape`."""
    xx, xy, yy = (moments[name] / moments["m00"] for name in ("mu20", "mu11", "mu02"))
    # A pixel is a unit square with a variance of 1/12; this avoids a division by zero below.
    xx, yy = xx + 1 / 12, yy + 1 / 12
    spread, mean = float(np.hypot((xx - yy) / 2, xy)), (xx + yy) / 2
    return float(np.sqrt(yy / xx)), float(np.sqrt((mean - spread) / (mean + spread)))


def _as_bytes(mask_HW: np.ndarray) -> np.ndarray:
    """The mask as (height, width) uint8, 0 where there is no lesion."""
    if mask_HW.dtype == np.bool_:
        return np.ascontiguousarray(mask_HW).view(np.uint8)
    return (mask_HW > 0).view(np.uint8)


def bounding_box(lesion_HW: np.ndarray) -> tuple[slice, slice]:
    """Rows and columns of the box around all lesions (bool or uint8); empty without a lesion."""
    left, top, width, height = cv2.boundingRect(lesion_HW.view(np.uint8))
    return slice(top, top + height), slice(left, left + width)


def _hull_pixels(edge_N2: np.ndarray) -> float:
    """Pixels whose centre lies in or on the convex hull of pixel centres.

    Pick's theorem, for a polygon of corners with whole coordinates: area + boundary points / 2 + 1.
    """
    corners_N2 = cv2.convexHull(edge_N2)[:, 0]
    sides_N2 = np.abs(np.diff(corners_N2, axis=0, append=corners_N2[:1]))
    return cv2.contourArea(corners_N2) + np.gcd(*sides_N2.T).sum() / 2 + 1
