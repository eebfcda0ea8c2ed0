"""What a lesion mask tells by itself, at the geometry of the mask as given.

Width and height come from the second moments, which a single stray pixel hardly moves: for an
ellipse with semi-axes a (along x) and b (along y) the standard deviations are a/2 and b/2. What
the outline tells comes from one smooth closed curve, :mod:`stdiff.birads.outline`: every number but
``area_fraction`` is then the same whatever the pixel size, as long as the lesion has enough pixels
(:data:`MIN_AREA_PX`) for an outline.

Terms: ACR BI-RADS Atlas, 5th ed. (2013), ultrasound lexicon, B. Masses.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from stdiff.birads.outline import Outline, edge_of, ellipse_bending, outline_of

# Fewer pixels have no shape to speak of.
MIN_AREA_PX = 20
# An outline whose course bends this many times as much as the ellipse of its own axes is no oval:
# an egg or "two or three undulations" (BI-RADS) stay below.
IRREGULAR_ABOVE_BENDING = 1.4
# Short over long axis above which an outline is called round, not oval.
ROUND_ABOVE_AXIS_RATIO = 0.85

# Margins that leave their trace in a mask. Between them a gap is left where none is named.
_FEW_NOTCHES, _MANY_NOTCHES = 2, 7
_SMOOTH_BENDING = 2.75
_SMALL_LOBES_BENDING = (5.0, 30.0)
_SPICULES_BENDING = 45.0
_CORNERS_BENDING = 2.0
_STRAIGHT_SIDES, _HARDLY_STRAIGHT = 0.42, 0.36


@dataclass(frozen=True)
class Shape:
    """Descriptors of the largest lesion of a mask; those of the outline None for a speck.

    Attributes:
        area_fraction: its pixels over all pixels of the frame, in (0, 1].
        aspect: height over width (standard deviations along y and x), > 0.
        axis_ratio: short over long principal axis, in (0, 1].
        solidity: its pixels over those in its convex hull, in (0, 1]; 1 for any digitised convex
            outline, however small.
        centroid: (x, y) as fractions of width and height, in (0, 1).
        orientation: "parallel" (to the skin: the long axis lies within 45° of the horizontal) or
            "not parallel".
        shape: "round", "oval" or "irregular", see :func:`shape_term`.
        compactness: 4 pi area / perimeter^2 (Cox 1927), in (0, 1]; 1 for a disc.
        curvature_energy: perimeter / (4 pi^2) times the integral of the squared curvature, >= 1;
            1 for a circle (the bending energy of Young et al. 1974, made free of scale).
        lobulations: bulges between notches, 0 for a convex outline; see
            :class:`stdiff.birads.outline.Outline`.
        margin: "circumscribed", "microlobulated", "angular" or "spiculated" where the outline is
            clear about it, else None; see :func:`margin_term`.
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
    return separate(mask_HW)[1]


def largest_lesion(mask_HW: np.ndarray) -> np.ndarray:
    """The largest 8-connected component as a boolean array; all False for an empty mask."""
    return separate(mask_HW)[0]


def separate(mask_HW: np.ndarray) -> tuple[np.ndarray, int]:
    """The largest 8-connected component as a boolean array, and the number of components."""
    bytes_HW = _as_bytes(mask_HW)
    window = window_of(bytes_HW)
    contours, hierarchy = cv2.findContours(
        bytes_HW[window], cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE
    )
    # In a two-level hierarchy what has no parent is a component, the rest are holes.
    count = int((hierarchy[0, :, 3] < 0).sum()) if contours else 0
    if count <= 1:
        return bytes_HW.view(np.bool_), count
    _, labels, statistics, _ = cv2.connectedComponentsWithStats(bytes_HW[window], connectivity=8)
    lesion_HW = np.zeros(mask_HW.shape, dtype=bool)
    lesion_HW[window] = labels == 1 + int(np.argmax(statistics[1:, cv2.CC_STAT_AREA]))
    return lesion_HW, count


def lesion_parts(mask_HW: np.ndarray) -> list[np.ndarray]:
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
    window = window_of(lesion_HW)
    lesion = np.ascontiguousarray(lesion_HW[window]).view(np.uint8)
    if not lesion.size:
        raise ValueError("the mask holds no lesion to measure")
    moments = cv2.moments(lesion, binaryImage=True)
    area_px = moments["m00"]
    aspect, axis_ratio = _axes(moments)
    edge_N2 = edge_of(lesion)
    has_outline = area_px >= MIN_AREA_PX and min(lesion.shape) > 2
    outline = outline_of(lesion, edge_N2) if has_outline else None
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
        # aspect <= 1 says just that: var_x - var_y = (long - short) cos(2 angle of the long axis).
        # The tolerance makes a disc parallel, whatever the rounding of its sums.
        orientation="parallel" if aspect <= 1 + 1e-9 else "not parallel",
        shape=shape_term(axis_ratio, outline),
        compactness=outline.compactness if outline else None,
        curvature_energy=outline.curvature_energy if outline else None,
        lobulations=outline.lobulations if outline else None,
        margin=margin_term(outline, axis_ratio) if outline else None,
    )


def shape_term(axis_ratio: float, outline: Outline | None) -> str:
    """BI-RADS shape: oval is "elliptical or egg-shaped", round "spherical", irregular neither.

    Irregular: the course of the outline, margin detail smoothed away, bends more than
    :data:`IRREGULAR_ABOVE_BENDING` times as much as the ellipse of equal axes. Else round if the
    axes are as good as equal (:data:`ROUND_ABOVE_AXIS_RATIO`), or oval.

    Args:
        axis_ratio: short over long axis.
        outline: None for a speck, which is round or oval.
    """
    if outline and outline.course_energy > IRREGULAR_ABOVE_BENDING * ellipse_bending(axis_ratio):
        return "irregular"
    return "round" if axis_ratio > ROUND_ABOVE_AXIS_RATIO else "oval"


def margin_term(outline: Outline, axis_ratio: float) -> str | None:
    """BI-RADS margin as far as an outline tells it; None where it is not clear.

    Spiculated ("sharp lines radiating") and microlobulated ("short cycle undulations") outlines
    have many notches, sharp and round ones; angular ("sharp corners") ones have straight sides and
    hardly a notch; circumscribed ("well defined, abrupt transition") ones bend like an ellipse.
    An indistinct margin is not in the mask, see :mod:`stdiff.birads.descriptors`.
    """
    bending = outline.curvature_energy / ellipse_bending(axis_ratio)
    if outline.lobulations >= _MANY_NOTCHES:
        if bending > _SPICULES_BENDING:
            return "spiculated"
        low, high = _SMALL_LOBES_BENDING
        return "microlobulated" if low < bending < high else None
    if outline.lobulations <= _FEW_NOTCHES:
        if outline.straight_fraction > _STRAIGHT_SIDES and bending > _CORNERS_BENDING:
            return "angular"
        straight = outline.straight_fraction > _HARDLY_STRAIGHT and bending > _CORNERS_BENDING
        if bending < _SMOOTH_BENDING and not straight:
            return "circumscribed"
    return None


def _axes(moments: dict[str, float]) -> tuple[float, float]:
    """(aspect, axis ratio) of an area; see :class:`Shape`."""
    xx, xy, yy = (moments[name] / moments["m00"] for name in ("mu20", "mu11", "mu02"))
    # A pixel is a unit square with a variance of 1/12 of its own: no division by zero below.
    xx, yy = xx + 1 / 12, yy + 1 / 12
    spread, mean = float(np.hypot((xx - yy) / 2, xy)), (xx + yy) / 2
    return float(np.sqrt(yy / xx)), float(np.sqrt((mean - spread) / (mean + spread)))


def _as_bytes(mask_HW: np.ndarray) -> np.ndarray:
    """The mask as (height, width) uint8, 0 where there is no lesion."""
    if mask_HW.dtype == np.bool_:
        return np.ascontiguousarray(mask_HW).view(np.uint8)
    return (mask_HW > 0).view(np.uint8)


def window_of(lesion_HW: np.ndarray) -> tuple[slice, slice]:
    """Rows and columns of the box around all lesions (bool or uint8); empty if there is none."""
    bytes_HW = lesion_HW.view(np.uint8)
    left, top, width, height = cv2.boundingRect(bytes_HW)
    return slice(top, top + height), slice(left, left + width)


def _hull_pixels(edge_N2: np.ndarray) -> float:
    """Pixels whose centre lies in or on the convex hull of pixel centres.

    Pick's theorem: the points with whole coordinates in a polygon whose corners have such are its
    area + half of those on its boundary + 1.
    """
    corners_N2 = cv2.convexHull(edge_N2)[:, 0]
    sides_N2 = np.abs(np.diff(corners_N2, axis=0, append=corners_N2[:1]))
    return cv2.contourArea(corners_N2) + np.gcd(*sides_N2.T).sum() / 2 + 1
