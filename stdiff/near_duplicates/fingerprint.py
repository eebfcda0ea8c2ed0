"""Fingerprint of an image: a stored thumbnail, and its detail and hash for comparisons.

Near-duplicates (:mod:`stdiff.near_duplicates.duplicates`) and lesion crops
(:mod:`stdiff.near_duplicates.crops`) are found from fingerprints alone. Grey levels are not
compared, since gain, gamma, equalisation and depth compensation change them. The *detail* is: the
difference to the local mean over the local contrast.
"""

from __future__ import annotations

from functools import cache

import numpy as np
from PIL import Image
from scipy.fft import dct
from scipy.ndimage import gaussian_filter1d, uniform_filter

from stdiff.runtime.files import InputError

FINGERPRINT_PX = 96
# Contrast (grey levels) below which detail is noise and is not amplified further.
NOISE_GREY = 5.0
# Limit, so that burnt-in marks, which have more contrast than tissue, do not outweigh it.
_STRONGEST_DETAIL = 3.0
# Rows and columns of a frame have texture (in grey levels) in at least this part of their pixels.
_TEXTURE_GREY = 2.5
_TEXTURED_PART = 0.4
_SMALLEST_CONTENT = 0.4
# Standard deviation of each coefficient (rows: down, columns: across) over 959 real frames of
# BUSI and BUS-BRA. Unwhitened, the layers across the image, which all breasts have, would dominate.
_SPREAD = np.array(
    [
        [1.00, 0.23, 0.55, 0.58, 0.74, 0.62, 0.56, 0.45],
        [0.41, 0.24, 0.46, 0.42, 0.47, 0.40, 0.38, 0.31],
        [0.82, 0.39, 0.57, 0.45, 0.48, 0.40, 0.37, 0.30],
        [0.88, 0.51, 0.61, 0.44, 0.45, 0.37, 0.33, 0.28],
        [1.00, 0.55, 0.62, 0.41, 0.40, 0.32, 0.29, 0.25],
        [0.96, 0.57, 0.63, 0.43, 0.36, 0.31, 0.27, 0.23],
        [0.87, 0.57, 0.56, 0.40, 0.35, 0.29, 0.24, 0.22],
        [0.77, 0.55, 0.50, 0.41, 0.34, 0.28, 0.24, 0.20],
    ],
    dtype=np.float32,
)


def fingerprint(image_HW: np.ndarray) -> bytes:
    """96 x 96 grey levels, row by row, area-averaged from a whole image of any size.

    Args:
        image_HW: (height, width) uint8, the image as it came: neither cut nor padded.
    """
    size = (FINGERPRINT_PX, FINGERPRINT_PX)
    return Image.fromarray(image_HW).resize(size, Image.Resampling.BOX).tobytes()


def fingerprint_array(cells: list[bytes]) -> np.ndarray:
    """(N, 96, 96) uint8 of a case table's ``fingerprint`` column.

    Raises:
        InputError: a cell that is no fingerprint.
    """
    wanted = FINGERPRINT_PX**2
    for row, cell in enumerate(cells):
        if not isinstance(cell, bytes) or len(cell) != wanted:
            found = f"{len(cell)} bytes" if isinstance(cell, bytes) else repr(cell)
            raise InputError(
                f"fingerprint of row {row}: {found}; expected {wanted} bytes; "
                "make the table again with `stdiff harmonize`"
            )
    flat = np.frombuffer(b"".join(cells), dtype=np.uint8)
    return flat.reshape(-1, FINGERPRINT_PX, FINGERPRINT_PX)


def sampling(
    low: np.ndarray, high: np.ndarray, count: int, size: int, smooth: np.ndarray | float = 1
) -> np.ndarray:
    """Matrices (N, count, size) that sample ``count`` points of the pixel range [low, high].

    Triangle filter, as wide as the spacing of the points times ``smooth``, at least a pixel.
    Beyond the image its border is repeated.

    Args:
        low, high: (N,) edges in pixels of an axis of ``size`` pixels.
        count: points on the range.
        size: pixels of the axis.
        smooth: (N,) or one width of the filter in spacings, 1 or more.
    """
    step = ((high - low) / count).astype(np.float32)
    points = np.arange(count, dtype=np.float32) + 0.5
    at = np.clip(low.astype(np.float32)[:, None] + points * step[:, None] - 0.5, 0, size - 1)
    width = np.maximum(step * np.float32(smooth), 1)
    weights = at[:, :, None] - np.arange(size, dtype=np.float32)
    np.abs(weights, out=weights)
    weights *= -1 / width[:, None, None]
    weights += 1
    np.maximum(weights, 0, out=weights)
    weights /= weights.sum(axis=-1, keepdims=True)
    return weights


def view(
    images_NHW: np.ndarray, boxes_N4: np.ndarray, size_px: int, smooth_N2: np.ndarray | None = None
) -> np.ndarray:
    """(N, size_px, size_px) float32: each image's box (top, bottom, left, right; px), resized."""
    if smooth_N2 is None:
        smooth_N2 = np.ones((len(images_NHW), 2), dtype=np.float32)
    _, height, width = images_NHW.shape
    down = sampling(boxes_N4[:, 0], boxes_N4[:, 1], size_px, height, smooth_N2[:, 0])
    across = sampling(boxes_N4[:, 2], boxes_N4[:, 3], size_px, width, smooth_N2[:, 1])
    return down @ images_NHW.astype(np.float32, copy=False) @ across.transpose(0, 2, 1)


def whole(count: int, size_px: int) -> np.ndarray:
    """(count, 4) boxes that are the whole square of ``size_px``."""
    return np.tile(np.array([0, size_px, 0, size_px], dtype=np.float32), (count, 1))


def detail(views_NHW: np.ndarray, sigma_px: float) -> np.ndarray:
    """Difference to the local mean over the local contrast, within ±3: free of gain and depth."""
    down, across = (gaussian(size, sigma_px) for size in views_NHW.shape[1:])
    difference = views_NHW - down @ views_NHW @ across.T
    power = down @ (difference * difference) @ across.T
    power += NOISE_GREY**2
    difference /= np.sqrt(power, out=power)
    return np.clip(difference, -_STRONGEST_DETAIL, _STRONGEST_DETAIL, out=difference)


@cache
def gaussian(size: int, sigma_px: float) -> np.ndarray:
    """(size, size) float32 matrix of the Gaussian filter of an axis, reflected at its ends."""
    return gaussian_filter1d(np.eye(size), sigma_px, axis=0).astype(np.float32)


@cache
def hash_kernels(radius: int, size_px: int) -> np.ndarray:
    """(size_px², D) float32 matrix that turns the detail of a square into its hash.

    The hash holds the DCT-II coefficients within ``radius`` (up to 8) half waves of the mean, which
    is left out, each divided by its standard deviation in real frames (diagonal whitening). Hashes
    are compared as :func:`unit` vectors.
    """
    waves = dct(np.eye(size_px), axis=0, norm="ortho")[:radius]
    down, across = np.mgrid[:radius, :radius]
    taken = (down**2 + across**2 < radius**2) & (down + across > 0)
    planes = np.einsum("ay,bx->abyx", waves, waves)[taken]
    kernels = planes.reshape(len(planes), -1) / _SPREAD[:radius, :radius][taken][:, None]
    return np.ascontiguousarray(kernels.T, dtype=np.float32)


def unit(vectors_ND: np.ndarray) -> np.ndarray:
    """Vectors over their lengths; zero where a length is (nearly) zero."""
    length = np.linalg.norm(vectors_ND, axis=1, keepdims=True)
    return np.divide(vectors_ND, length, out=np.zeros_like(vectors_ND), where=length > 1e-3)


def content_boxes(images_NHW: np.ndarray) -> np.ndarray:
    """(N, 4) float32 top, bottom, left, right of the content without flat borders, in px.

    Rows and columns at the rim are dropped while fewer than 40 % of their pixels have texture, e.g.
    black bars and the surround of a screenshot. The whole image if too little would be left.
    """
    grey = images_NHW.astype(np.float32)
    size = grey.shape[-1]
    near = (0, 3, 3)
    mean = uniform_filter(grey, near)
    textured = uniform_filter(grey * grey, near) - mean * mean > _TEXTURE_GREY**2
    boxes = whole(len(grey), size)
    for image, box in zip(textured, boxes, strict=True):
        found = _content_box(image)
        if found is not None:
            box[:] = found
    return boxes


def _content_box(textured_HW: np.ndarray) -> tuple[int, int, int, int] | None:
    size = len(textured_HW)
    top, bottom, left, right = 0, size, 0, size
    # Twice: the second pass takes the share of a row over the columns kept by the first.
    for _ in range(2):
        rows = _textured_lines(textured_HW[:, left:right].mean(axis=1))
        columns = _textured_lines(textured_HW[top:bottom].mean(axis=0))
        if not rows.size or not columns.size:
            return None
        (top, bottom), (left, right) = (rows[[0, -1]] + [0, 1], columns[[0, -1]] + [0, 1])
    large_enough = min(bottom - top, right - left) >= _SMALLEST_CONTENT * size
    return (top, bottom, left, right) if large_enough else None


def _textured_lines(part: np.ndarray) -> np.ndarray:
    """Indices of the lines with texture, by the mean of each with its neighbours."""
    # For so few numbers scipy's filter is ten times slower.
    padded = np.concatenate([part[:1], part, part[-1:]])
    return np.flatnonzero(padded[:-2] + part + padded[2:] > 3 * _TEXTURED_PART)
