"""A lesion against the tissue around it: echo pattern, posterior features, sharpness of the edge.

Grey levels of an ultrasound image are log-compressed: grey is about contrast x (dB above the
floor). A difference of grey levels is a ratio of echo amplitudes whatever the gain (15 of 255
levels are about 3.5 dB at the usual 60 dB dynamic range, a difference a reader sees), and the
ratio of two levels does not depend on the contrast. Speckle is averaged away on a grid of cells,
:data:`_CELLS` across the lesion, which also makes the measures independent of the pixel size.

Terms: ACR BI-RADS Atlas, 5th ed. (2013), ultrasound lexicon.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

VISIBLE_GREY = 15.0
# Cells below this mean are black on the screen: free of echoes, or in full shadow.
BLACK_GREY = 20.0
# Level of the lesion over that of fat, see :func:`echo_pattern`.
ANECHOIC_RATIO, HYPOECHOIC_RATIO, HYPERECHOIC_RATIO = 0.12, 0.72, 1.15
# Unevenness (see :func:`_unevenness`) of a mass that is visible: in grey levels, some 1.5 dB, and
# over its speckle. Below the last the solid part of a complex mass is even.
PATCHY_GREY, PATCHY_OVER_SPECKLE, EVEN_GREY = 7.0, 0.6, 6.0
# Parts of a mass that count as a component of it.
COMPONENT_FRACTION = 0.1

_CELLS = 32
_MIN_CELLS = 9


@dataclass(frozen=True)
class Surroundings:
    """The lesion and what is around it, from the top of the frame to its own height below it.

    Arrays of cells are (rows, columns); a cell is `cell_px` pixels square.

    Attributes:
        pixels: (height, width) uint8, the window with thin callipers and speckle peaks taken out.
        cell_px: whole number, at least 1.
        grey: float32, mean grey level of each cell.
        lesion: bool, cells of the largest lesion.
        any_lesion: bool, cells of all lesions.
        core: bool, the lesion without a rim in which edge, halo and callipers lie.
        tissue: bool, beside the lesion at equal depth, off every lesion's rim and shadow.
        box: top, bottom, left, right of the lesion in cells, the ends exclusive.
        size: square root of the lesion's area in cells.
    """

    pixels: np.ndarray
    cell_px: int
    grey: np.ndarray
    lesion: np.ndarray
    any_lesion: np.ndarray
    core: np.ndarray
    tissue: np.ndarray
    box: tuple[int, int, int, int]
    size: float


def surroundings_of(
    image_HW: np.ndarray, lesion_HW: np.ndarray, mask_HW: np.ndarray
) -> Surroundings:
    """Average the frame over cells, about :data:`_CELLS` across the lesion.

    Args:
        image_HW: (height, width) uint8.
        lesion_HW: bool, the lesion described.
        mask_HW: bool, all lesions.
    """
    left, top, width, height = cv2.boundingRect(lesion_HW.view(np.uint8))
    area_px = cv2.countNonZero(lesion_HW[top : top + height].view(np.uint8))
    cell_px = max(1, round(np.sqrt(area_px) / _CELLS))
    # The last cells are whole ones, and a small lesion has a few beside it at least.
    reach = max(width, 4 * cell_px)
    x_0, x_1 = max(0, left - reach), min(image_HW.shape[1], left + width + reach)
    y_1 = min(image_HW.shape[0], top + 2 * height + 3 * cell_px)
    window = np.s_[: y_1 - y_1 % cell_px, x_0 : x_1 - (x_1 - x_0) % cell_px]
    # A median over 3 pixels takes out thin callipers and leaves the mean of speckle alone.
    pixels = cv2.medianBlur(np.ascontiguousarray(image_HW[window]), 3)
    rows, columns = pixels.shape[0] // cell_px, pixels.shape[1] // cell_px
    grey = cv2.resize(pixels, (columns, rows), interpolation=cv2.INTER_AREA).astype(np.float32)
    centres = np.s_[cell_px // 2 :: cell_px, cell_px // 2 :: cell_px]
    lesion = np.ascontiguousarray(lesion_HW[window][centres][:rows, :columns])
    any_lesion = np.ascontiguousarray(mask_HW[window][centres][:rows, :columns])
    x, y, w, h = cv2.boundingRect(lesion.view(np.uint8))
    size = float(np.sqrt(np.count_nonzero(lesion)))
    core = cv2.erode(lesion.view(np.uint8), _disc(max(2, round(0.1 * size))), borderValue=0)
    core = core.view(np.bool_) if np.count_nonzero(core) >= _MIN_CELLS else lesion
    rim = cv2.dilate(any_lesion.view(np.uint8), _disc(max(1, round(0.12 * size)))).view(np.bool_)
    tissue = ~rim
    tissue[:y] = tissue[y + h :] = False
    lit = tissue & ~np.logical_or.accumulate(any_lesion, axis=0)
    return Surroundings(
        pixels=pixels,
        cell_px=cell_px,
        grey=grey,
        lesion=lesion,
        any_lesion=any_lesion,
        core=core,
        tissue=lit if np.count_nonzero(lit) >= _MIN_CELLS else tissue,
        box=(y, y + h, x, x + w),
        size=size,
    )


def _disc(radius: int) -> np.ndarray:
    return cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1, 2 * radius + 1))


def _quantile(values: np.ndarray, fraction: float = 0.5) -> float:
    """The value below which a fraction lies; without numpy's checks, which cost more than it."""
    place = int(fraction * (values.size - 1))
    return float(np.partition(values.ravel(), place)[place])


# ---- posterior features


@dataclass(frozen=True)
class Beneath:
    """Grey level beneath the lesion less that of the tissue beside at equal depth."""

    middle_grey: float
    left_grey: float
    right_grey: float


def beneath_of(around: Surroundings) -> Beneath | None:
    """None where the image ends too soon below the lesion or there is nothing beside.

    The column is the middle of the lesion's width (its edges cast refractive shadows of their
    own), one lesion's height deep or to the image's end; the neighbours, up to a width away on
    either side, are the median of each row, so that a dark beam among them does not count.
    """
    top, bottom, left, right = around.box
    height, width = bottom - top, right - left
    rows = slice(bottom + 1, bottom + 1 + max(4, height))
    deep = around.grey[rows]
    if len(deep) < max(3, height / 4):
        return None
    columns = np.arange(deep.shape[1])
    gap = max(1, round(0.1 * width))
    clear = ~around.any_lesion[: rows.stop].any(axis=0)
    beside = ((columns < left - gap) | (columns >= right + gap)) & clear
    if beside.sum() < 2:
        return None
    neighbours = np.partition(deep[:, beside], middle := int(beside.sum()) // 2, axis=1)
    difference = deep - neighbours[:, middle, None]
    free = ~around.any_lesion[rows]

    def median_of(first: float, last: float) -> float:
        start = round(left + first * width)
        strip = np.s_[:, start : max(start + 1, round(left + last * width))]
        values = difference[strip][free[strip]]
        return _quantile(values) if values.size else float("nan")

    parts = median_of(0.12, 0.88), median_of(0.1, 0.45), median_of(0.55, 0.9)
    return None if np.isnan(parts).any() else Beneath(*parts)


def posterior_features(beneath: Beneath | None) -> str | None:
    """Sound through the lesion against sound beside it, as far as it differs visibly.

    Enhancement: the column beneath is brighter by :data:`VISIBLE_GREY`; shadowing: darker;
    combined pattern: one half of the one, the other half of the other kind.
    """
    if beneath is None:
        return None
    low, high = sorted((beneath.left_grey, beneath.right_grey))
    if low < -VISIBLE_GREY and high > 0.6 * VISIBLE_GREY:
        return "combined pattern"
    if beneath.middle_grey > VISIBLE_GREY:
        return "enhancement"
    return "shadowing" if beneath.middle_grey < -VISIBLE_GREY else "no posterior features"


# ---- echo pattern


def echo_difference(around: Surroundings) -> float | None:
    """Median grey of the lesion less that of the tissue beside it at equal depth."""
    if not around.tissue.any():
        return None
    return _quantile(around.grey[around.core]) - _quantile(around.grey[around.tissue])


def echo_pattern(around: Surroundings, beneath: Beneath | None) -> str | None:
    """Echoes of the lesion against fat, once the sound it swallows itself is made good.

    The reference of the lexicon is fat, the darkest tissue of a breast: the lower quartile beside
    the lesion at equal depth. What lies deep in a shadowing lesion is dark because of what lies
    above it, so the loss seen beneath the lesion is given back in proportion to the path through
    the lesion (Beer-Lambert in dB); cells that the shadow blackens entirely tell nothing.

    - anechoic: no echoes, below :data:`ANECHOIC_RATIO` of fat all over;
    - complex cystic and solid: black parts, and a solid part that is even;
    - heterogeneous: a solid part that is patchy beyond its speckle, any tilt aside;
    - hyper-, iso-, hypoechoic: by the ratio of its level to that of fat.

    None when there is no tissue beside the lesion.
    """
    if not around.tissue.any():
        return None
    fat = max(10.0, _quantile(around.grey[around.tissue], 0.25))
    loss = _loss_grey(around, beneath)
    echo = around.grey + loss
    fluid = around.core & (around.grey < BLACK_GREY)
    solid = around.core & ~(cv2.dilate(fluid.view(np.uint8), _disc(1)) > 0)
    told = around.core & ~_in_shadow(around, fluid, solid, loss)
    fluid &= told
    uneven, speckle = _unevenness(echo, told, 0.1 * around.size)
    if uneven > PATCHY_GREY and _is_part(fluid, told) and _is_part(solid, told):
        gap = _quantile(echo[solid]) - _quantile(echo[fluid])
        patches, _ = _unevenness(echo, solid, 0.1 * around.size)
        if gap > 1.5 * VISIBLE_GREY and patches < EVEN_GREY:
            return "complex cystic and solid"
    level = _quantile(echo[told]) / fat
    if level < ANECHOIC_RATIO:
        return "anechoic"
    if uneven > max(PATCHY_GREY, PATCHY_OVER_SPECKLE * speckle):
        return "heterogeneous"
    if level > HYPERECHOIC_RATIO:
        return "hyperechoic"
    return "isoechoic" if level > HYPOECHOIC_RATIO else "hypoechoic"


def _loss_grey(around: Surroundings, beneath: Beneath | None) -> np.ndarray:
    """Grey levels lost on the way through the lesion down to each cell; negative if gained."""
    if beneath is None:
        return np.zeros_like(around.grey)
    path = np.cumsum(around.lesion, axis=0, dtype=np.float32)
    path /= path.max()
    middle = (around.box[2] + around.box[3]) / 2
    in_left_half = np.arange(path.shape[1]) < middle
    return -path * np.where(in_left_half, beneath.left_grey, beneath.right_grey).astype(np.float32)


def _in_shadow(
    around: Surroundings, fluid: np.ndarray, solid: np.ndarray, loss: np.ndarray
) -> np.ndarray:
    """Black cells that the solid part itself would leave black at that depth of the shadow."""
    if solid.sum() < _MIN_CELLS:
        return np.zeros_like(fluid)
    level = _quantile((around.grey + loss)[solid])
    hidden = fluid & (level - loss < 0.75 * BLACK_GREY)
    return hidden if (around.core & ~hidden).sum() >= _MIN_CELLS else np.zeros_like(fluid)


def _is_part(part: np.ndarray, whole: np.ndarray) -> bool:
    """Large enough to be a component of the mass."""
    return np.count_nonzero(part) >= max(_MIN_CELLS, COMPONENT_FRACTION * np.count_nonzero(whole))


def _unevenness(grey: np.ndarray, part: np.ndarray, sigma: float) -> tuple[float, float]:
    """Standard deviation of the local mean over a part, and that of the speckle about it.

    The local mean is weighted by a Gaussian of `sigma` cells inside the part. A plane fitted to
    it, which attenuation or gain may leave, does not count.
    """
    left, top, width, height = cv2.boundingRect(part.view(np.uint8))
    window = np.s_[top : top + height, left : left + width]
    part, grey = part[window], grey[window]
    weight = part.astype(np.float32)
    mean = cv2.GaussianBlur(grey * weight, (0, 0), sigma)[part]
    mean /= cv2.GaussianBlur(weight, (0, 0), sigma)[part]
    speckle = float((grey[part] - mean).std())
    variables_3N = np.stack([mean, *np.nonzero(part)]).astype(np.float64)
    covariance = np.cov(variables_3N, bias=True)
    slopes = np.linalg.pinv(covariance[1:, 1:]) @ covariance[1:, 0]
    return float(np.sqrt(max(0.0, covariance[0, 0] - covariance[0, 1:] @ slopes))), speckle


# ---- edge


def edge_sharpness(around: Surroundings) -> float | None:
    """Rise of the grey level across the outline over that from well inside to well outside.

    Across: from the cells just within to those just without; well inside and outside: an eighth
    to a quarter of the lesion's size away. About 1 for an abrupt edge. None where lesion and
    surroundings look alike.
    """
    top, bottom, _, _ = around.box
    inside = cv2.distanceTransform(around.lesion.view(np.uint8), cv2.DIST_L2, 3)
    outside = cv2.distanceTransform((~around.any_lesion).view(np.uint8), cv2.DIST_L2, 3)
    outside[bottom:] = 0  # beneath is another matter
    near, far = (0, 2.5), (0.14 * around.size, 0.26 * around.size)

    def mean_of(distance: np.ndarray, reach: tuple[float, float]) -> float:
        cells = around.grey[(distance > reach[0]) & (distance <= reach[1])]
        return float(cells.mean()) if cells.size else float("nan")

    whole = mean_of(outside, far) - mean_of(inside, far)
    if not abs(whole) > VISIBLE_GREY:
        return None
    return (mean_of(outside, near) - mean_of(inside, near)) / whole
