"""Near-duplicate images: one frame with and without callipers, shifted, cropped or re-saved.

A split that ignores them leaks: about a third of BUSI has such a twin. Two 64 x 64 thumbnails are
of one scene if

* their normalised cross-correlation exceeds 0.93, or
* it exceeds 0.80 and their *detail* (difference to the surroundings over the local contrast)
  correlates above 0.44 at some shift of up to 4 thumbnail pixels.

The plain correlation alone cannot draw the line: the usual 0.97 misses dozens of pairs of BUSI
that are the same frame to the eye, while below 0.92 all dark images with a bright top are alike.
The detail can: on BUSI nothing lies between 0.41 and 0.46, and in BUS-BRA, where patients are
known, every pair found is one patient. Groups are the connected components of the relation.
"""

from __future__ import annotations

import numpy as np
from PIL import Image
from scipy import fft
from scipy.ndimage import gaussian_filter
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

THUMBNAIL_PX = 64
SAME_CORRELATION = 0.93
CANDIDATE_CORRELATION = 0.80
DETAIL_CORRELATION = 0.44
MAX_SHIFT_PX = 4
_DETAIL_SIGMA_PX = 4.0
# Contrast (grey levels) below which detail is noise and is not amplified further.
_NOISE_GREY = 5.0
# Rows of the correlation matrix, or pairs, held at once: memory grows with N, not N squared.
_BLOCK = 512


def thumbnail(image_HW: np.ndarray) -> np.ndarray:
    """(64, 64) uint8, area-averaged, from an image of any size and aspect ratio."""
    size = (THUMBNAIL_PX, THUMBNAIL_PX)
    return np.asarray(Image.fromarray(image_HW).resize(size, Image.Resampling.BOX))


def duplicate_pairs(images_NHW: np.ndarray) -> np.ndarray:
    """Pairs (i, j), i < j, of images of one scene, as (pairs, 2) int.

    Args:
        images_NHW: (N, height, width) uint8. An image of one grey level matches nothing.
    """
    if len(images_NHW) == 0:
        return np.empty((0, 2), dtype=int)
    thumbnails_NHW = np.stack([thumbnail(image) for image in images_NHW]).astype(np.float32)
    pairs, correlation = _correlated_pairs(_unit(thumbnails_NHW))
    doubtful = np.flatnonzero(correlation <= SAME_CORRELATION)
    same = correlation > SAME_CORRELATION
    same[doubtful] = _detail_correlation(thumbnails_NHW, pairs[doubtful]) > DETAIL_CORRELATION
    return pairs[same]


def duplicate_groups(images_NHW: np.ndarray) -> np.ndarray:
    """(N,) int group numbers; near-duplicates, directly or through others, share one.

    Args:
        images_NHW: (N, height, width) uint8.
    """
    return joined(len(images_NHW), duplicate_pairs(images_NHW))


def joined(count: int, pairs: np.ndarray) -> np.ndarray:
    """(count,) int labels of the connected components that (pairs, 2) links make."""
    links = coo_array((np.ones(len(pairs), dtype=bool), (pairs[:, 0], pairs[:, 1])), (count, count))
    return connected_components(links, directed=False)[1].astype(int)


def _unit(images_NHW: np.ndarray) -> np.ndarray:
    """Zero mean and unit norm each; all zero where an image is constant."""
    centred = images_NHW - images_NHW.mean(axis=(1, 2), keepdims=True)
    norms = np.linalg.norm(centred, axis=(1, 2), keepdims=True)
    return np.divide(centred, norms, out=np.zeros_like(centred), where=norms > 1e-3)


def _correlated_pairs(units_NHW: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Candidate pairs (pairs, 2) and their plain correlation (pairs,)."""
    vectors = units_NHW.reshape(len(units_NHW), -1)
    pairs, values = [], []
    for start in range(0, len(vectors), _BLOCK):
        # Only from the block's own rows on: the matrix is symmetric.
        correlation = vectors[start : start + _BLOCK] @ vectors[start:].T
        i, j = np.nonzero(np.triu(correlation > CANDIDATE_CORRELATION, k=1))
        pairs.append(np.column_stack([i, j]) + start)
        values.append(correlation[i, j])
    return np.concatenate(pairs), np.concatenate(values)


def _detail_correlation(thumbnails_NHW: np.ndarray, pairs: np.ndarray) -> np.ndarray:
    """(pairs,) greatest correlation of the details over small shifts.

    Shifts are circular, by the Fourier transform; at 4 of 64 pixels the wrapped rim is small.
    """
    spectra = fft.rfft2(_unit(_detail(thumbnails_NHW)))
    reach = np.r_[-MAX_SHIFT_PX : MAX_SHIFT_PX + 1]
    best = np.empty(len(pairs), dtype=np.float32)
    for start in range(0, len(pairs), _BLOCK):
        block = pairs[start : start + _BLOCK]
        correlation = fft.irfft2(spectra[block[:, 0]] * spectra[block[:, 1]].conj())
        shifts = correlation[:, reach[:, None], reach[None, :]]
        best[start : start + _BLOCK] = shifts.max(axis=(1, 2))
    return best


def _detail(thumbnails_NHW: np.ndarray) -> np.ndarray:
    """Difference to the local mean over the local contrast: free of brightness and depth gain."""
    sigma = (0, _DETAIL_SIGMA_PX, _DETAIL_SIGMA_PX)
    difference = thumbnails_NHW - gaussian_filter(thumbnails_NHW, sigma)
    contrast = np.sqrt(gaussian_filter(difference**2, sigma) + _NOISE_GREY**2)
    return difference / contrast
