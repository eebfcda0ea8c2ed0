"""Near-duplicate images: the same frame with and without callipers, cropped a little, re-saved.

BUSI holds 110 such groups over 250 of its 780 images; a split that ignores them leaks. Two
images are near-duplicates when the normalised cross-correlation of their 64 x 64 thumbnails
exceeds 0.97, and groups are the connected components of that relation.
"""

from __future__ import annotations

import numpy as np
from PIL import Image
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

CORRELATION = 0.97
THUMBNAIL_PX = 64
# Rows of the correlation matrix that are held at once: memory grows with N, not with N squared.
_BLOCK = 512


def thumbnail(image_HW: np.ndarray) -> np.ndarray:
    """(64, 64) uint8, area-averaged, from an image of any size and aspect ratio."""
    size = (THUMBNAIL_PX, THUMBNAIL_PX)
    return np.asarray(Image.fromarray(image_HW).resize(size, Image.Resampling.BOX))


def duplicate_pairs(images_NHW: np.ndarray, threshold: float = CORRELATION) -> np.ndarray:
    """Pairs (i, j), i < j, whose thumbnails correlate above the threshold.

    Args:
        images_NHW: (N, height, width) uint8.
        threshold: normalised cross-correlation in (0, 1).

    Returns:
        (pairs, 2) int array. An image of one grey level correlates with nothing.
    """
    if len(images_NHW) == 0:
        return np.empty((0, 2), dtype=int)
    flat = np.stack([thumbnail(image) for image in images_NHW]).reshape(len(images_NHW), -1)
    units = flat.astype(np.float32)
    units -= units.mean(axis=1, keepdims=True)
    units /= np.maximum(np.linalg.norm(units, axis=1, keepdims=True), 1e-6)
    pairs = [np.empty((0, 2), dtype=int)]
    for start in range(0, len(units), _BLOCK):
        # Only from the block's own rows on: the matrix is symmetric.
        near = np.argwhere(units[start : start + _BLOCK] @ units[start:].T > threshold) + start
        pairs.append(near[near[:, 0] < near[:, 1]])
    return np.concatenate(pairs)


def duplicate_groups(images_NHW: np.ndarray, threshold: float = CORRELATION) -> np.ndarray:
    """Group number of each image; near-duplicates, directly or through others, share one.

    Args:
        images_NHW: (N, height, width) uint8.
        threshold: normalised cross-correlation in (0, 1).

    Returns:
        (N,) int array.
    """
    return joined(len(images_NHW), duplicate_pairs(images_NHW, threshold))


def joined(count: int, pairs: np.ndarray) -> np.ndarray:
    """(count,) int labels of the connected components that (pairs, 2) links make."""
    links = coo_array((np.ones(len(pairs), dtype=bool), (pairs[:, 0], pairs[:, 1])), (count, count))
    return connected_components(links, directed=False)[1].astype(int)
