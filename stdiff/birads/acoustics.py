"""Echo pattern, posterior features and edge sharpness of a lesion, from the tissue around it.

Grey levels of an ultrasound image are log-compressed: grey is about contrast x (dB above the
floor). A difference of grey levels is a ratio of echo amplitudes at any gain (15 of 255 levels are
about 3.5 dB at the usual 60 dB dynamic range, a visible difference); the ratio of two levels does
not depend on the contrast. Averages over cells, :data:`_CELLS` across the lesion, remove speckle
and make the measures independent of the pixel size.

Terms: ACR BI-RADS Atlas, 5th ed. (2013), ultrasound lexicon.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

VISIBLE_GREY = 15.0
# Cells below this mean look black: free of echoes, or in full shadow.
BLACK_GREY = 20.0
# Grey of the lesion over grey of fat, see :func:`echo_pattern`.
ANECHOIC_RATIO, HYPOECHOIC_RATIO, HYPERECHOIC_RATIO = 0.12, 0.72, 1.15
# See :func:`_unevenness`: visible above the first two (grey levels, about 1.5 dB; times speckle).
# The solid part of a complex mass is even below the third (grey levels).
PATCHY_GREY, PATCHY_OVER_SPECKLE, EVEN_GREY = 7.0, 0.6, 6.0
# Minimum area of a component of a complex mass over that of the mass.
COMPONENT_FRACTION = 0.1

_CELLS = 32
_MIN_CELLS = 9


@dataclass(frozen=True)
class Surroundings:
    """The lesion and its surroundings, from the top of the frame to one lesion height below.

    Attributes:
        pixels: (height, width) uint8, the window without thin callipers and speckle peaks.
        cell_px: side of a cell in pixels, at least 1.
        grey: (rows, columns) float32, mean grey level of each cell.
        lesion: bool, cells of the largest lesion.
        any_lesion: bool, cells of all lesions.
        core: bool, the lesion without its rim (edge, halo, callipers).
        tissue: bool, beside the lesion at equal depth, outside every lesion's rim and shadow.
        box: top, bottom, left, right of the lesion in cells, ends exclusive.
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
    # Whole cells only, at least four of them on either side of a small lesion.
    reach = max(width, 4 * cell_px)
    x_0, x_1 = max(0, left - reach), min(image_HW.shape[1], left + width + reach)
    y_1 = min(image_HW.shape[0], top + 2 * height + 3 * cell_px)
    window = np.s_[: y_1 - y_1 % cell_px, x_0 : x_1 - (x_1 - x_0) % cell_px]
    # A median over 3 pixels removes thin callipers and keeps the mean of speckle.
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
    """A quantile without interpolation; np.quantile spends most of its time on checks."""
    place = int(fraction * (values.size - 1))
    return float(np.partition(values.ravel(), place)[place])


# ---- posterior features


@dataclass(frozen=True)
class PosteriorDifference:
    """Grey level beneath the lesion minus that of the tissue beside it at equal depth."""

    middle_grey: float
    left_grey: float
    right_grey: float


def posterior_difference(around: Surroundings) -> PosteriorDifference | None:
    """The difference; None if the image ends too soon below the lesion or nothing lies beside it.

    Beneath: the middle of the lesion's width (its edges cast refractive shadows), one lesion height
    deep or to the end of the image. Beside: up to one lesion width on either side, the median of
    each row, so that a single dark beam has no effect.
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
    return None if np.isnan(parts).any() else PosteriorDifference(*parts)


def posterior_features(beneath: PosteriorDifference | None) -> str | None:
    """The BI-RADS term; None without a difference.

    Enhancement: beneath is brighter by :data:`VISIBLE_GREY`; shadowing: darker by as much; combined
    pattern: one half is darker, the other brighter.
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
    """Median grey of the lesion minus that of the tissue beside it; None without such tissue."""
    if not around.tissue.any():
        return None
    return _quantile(around.grey[around.core]) - _quantile(around.grey[around.tissue])


def echo_pattern(around: Surroundings, beneath: PosteriorDifference | None) -> str | None:
    """The BI-RADS term, relative to fat; None without tissue beside the lesion.

    Fat, the lexicon's reference, is the darkest tissue of a breast: here the lower quartile beside
    the lesion at equal depth. Attenuation within the lesion is corrected: the loss measured beneath
    it is added back in proportion to the path through it (Beer-Lambert in dB). Cells that the
    shadow blackens entirely are left out.

    - complex cystic and solid: black parts, and a solid part that is even;
    - anechoic: median below :data:`ANECHOIC_RATIO` of fat;
    - heterogeneous: local means vary beyond the speckle, after removal of a linear trend;
    - hyper-, iso-, hypoechoic: by the ratio of the median to fat.
    """
    if not around.tissue.any():
        return None
    fat = max(10.0, _quantile(around.grey[around.tissue], 0.25))
    loss = _loss_grey(around, beneath)
    echo = around.grey + loss
    fluid = around.core & (around.grey < BLACK_GREY)
    solid = around.core & ~(cv2.dilate(fluid.view(np.uint8), _disc(1)) > 0)
    usable = around.core & ~_in_shadow(around, fluid, solid, loss)
    fluid &= usable
    uneven, speckle = _unevenness(echo, usable, 0.1 * around.size)
    if uneven > PATCHY_GREY and _is_part(fluid, usable) and _is_part(solid, usable):
        gap = _quantile(echo[solid]) - _quantile(echo[fluid])
        patches, _ = _unevenness(echo, solid, 0.1 * around.size)
        if gap > 1.5 * VISIBLE_GREY and patches < EVEN_GREY:
            return "complex cystic and solid"
    level = _quantile(echo[usable]) / fat
    if level < ANECHOIC_RATIO:
        return "anechoic"
    if uneven > max(PATCHY_GREY, PATCHY_OVER_SPECKLE * speckle):
        return "heterogeneous"
    if level > HYPERECHOIC_RATIO:
        return "hyperechoic"
    return "isoechoic" if level > HYPOECHOIC_RATIO else "hypoechoic"


def _loss_grey(around: Surroundings, beneath: PosteriorDifference | None) -> np.ndarray:
    """Grey levels lost between the lesion's top and each cell; negative for enhancement."""
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
    """Black cells in which the solid part would be black as well, at their depth in the shadow."""
    if solid.sum() < _MIN_CELLS:
        return np.zeros_like(fluid)
    level = _quantile((around.grey + loss)[solid])
    hidden = fluid & (level - loss < 0.75 * BLACK_GREY)
    return hidden if (around.core & ~hidden).sum() >= _MIN_CELLS else np.zeros_like(fluid)


def _is_part(part: np.ndarray, whole: np.ndarray) -> bool:
    """Whether a part is large enough to be a component of the mass."""
    return np.count_nonzero(part) >= max(_MIN_CELLS, COMPONENT_FRACTION * np.count_nonzero(whole))


def _unevenness(grey: np.ndarray, part: np.ndarray, sigma: float) -> tuple[float, float]:
    """Standard deviations, in a part, of the local mean grey and of the speckle about it.

    The local mean is weighted by a Gaussian of `sigma` cells inside the part. A plane is fitted and
    removed first, for attenuation and gain cause one.
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
    """Grey step across the outline over the step from far inside to far outside; 1 if abrupt.

    Across the outline: cells up to 2.5 cells from it. Far inside and outside: an eighth to a
    quarter of the lesion's size from it. None if that step is below :data:`VISIBLE_GREY`.
    """
    top, bottom, _, _ = around.box
    inside = cv2.distanceTransform(around.lesion.view(np.uint8), cv2.DIST_L2, 3)
    outside = cv2.distanceTransform((~around.any_lesion).view(np.uint8), cv2.DIST_L2, 3)
    outside[bottom:] = 0  # leaves out shadow and enhancement beneath
    near, far = (0, 2.5), (0.14 * around.size, 0.26 * around.size)

    def mean_of(distance: np.ndarray, reach: tuple[float, float]) -> float:
        cells = around.grey[(distance > reach[0]) & (distance <= reach[1])]
        return float(cells.mean()) if cells.size else float("nan")

    whole = mean_of(outside, far) - mean_of(inside, far)
    if not abs(whole) > VISIBLE_GREY:
        return None
    return (mean_of(outside, near) - mean_of(inside, near)) / whole
