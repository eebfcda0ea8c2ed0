"""Near-duplicate images: one frame with and without callipers, cropped, re-saved, on a screenshot.

A split that ignores them leaks: about a third of BUSI has a near-duplicate. A pair is a candidate
if the perceptual hash of one whole image is close to that of one of 25 windows of the other.
Candidates are aligned, coarse to fine. They are duplicates if the detail (see
:mod:`stdiff.near_duplicates.fingerprint`) of their common part correlates above
:data:`SAME_CORRELATION`, and its middle above :data:`SAME_IN_THE_MIDDLE`. In BUSI no pair lies
between 0.36 and 0.43; pairs of two patients or collections reach 0.35. A threshold on grey levels
fails: a correlation of 0.97 misses dozens of pairs of BUSI that are visibly one frame, and at 0.92
all dark images with a bright top match.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import pandas as pd
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from stdiff.near_duplicates.alignment import Grid, align
from stdiff.near_duplicates.fingerprint import (
    FINGERPRINT_PX,
    content_boxes,
    detail,
    hash_kernels,
    sampling,
    unit,
    view,
)
from stdiff.runtime.workers import workers

SAME_CORRELATION = 0.40
SAME_IN_THE_MIDDLE = 0.35
CANDIDATE_SIMILARITY = 0.66
# Coarse to fine: grids at half size, each with a correlation that true pairs exceed, then at full
# size. The second grid, without an alignment step, is for speed: it rejects most candidates among
# frames of little contrast; true pairs of BUSI and BUS-BRA reach 0.7 there.
_COARSE = (
    *((Grid(8, 1.5, 2), 0.68), (Grid(16, 2.0, 0), 0.48)),
    *((Grid(16, 2.0, 4), 0.55), (Grid(32, 4.0, 3), 0.55)),
)
_FINE = (Grid(FINGERPRINT_PX, 12.0, 3), Grid(FINGERPRINT_PX, 4.0, 0))
# The middle of the common part, at the finest resolution.
_MIDDLE = np.array([[0.15, 0.85, 0.15, 0.85]], dtype=np.float32)
_FINEST = Grid(round(0.7 * FINGERPRINT_PX), 4.0, 0)
# Parts of an axis that a crop may keep: one per axis make a window.
_PARTS = ((0.0, 1.0), (0.0, 0.83), (0.17, 1.0), (0.1, 0.9), (0.2, 0.8))
_WINDOWS = np.array([(*down, *across) for down in _PARTS for across in _PARTS], dtype=np.float32)
_CONTENT_PX = 64
_WINDOW_PX = 16
_RADIUS = 8
# Images hashed and pairs aligned at once, which bounds memory.
_IMAGES = 128
_ROUGH_PAIRS, _PAIRS = 384, 48
_COLUMNS = ("i", "j", "correlation", "kind")
_BOX = ("top", "bottom", "left", "right")
Sliced = TypeVar("Sliced", np.ndarray, pd.DataFrame)


def duplicate_pairs(
    fingerprints_NHW: np.ndarray, processes: int = 1, parts_N: np.ndarray | None = None
) -> pd.DataFrame:
    """Pairs of images of one frame, sorted. A pair depends on its two images alone.

    Args:
        fingerprints_NHW: (N, 96, 96) uint8. An image of one grey level matches nothing.
        processes: worker processes; the result does not depend on it.
        parts_N: part that each image belongs to; only images of different parts are compared.
            By default each image is a part.

    Returns:
        ``i`` < ``j``, ``correlation`` in (0.4, 1] and ``kind``: "frame" if both show the same
        part of the frame (to 4 % of its sides, without flat borders), else "crop".
    """
    if len(fingerprints_NHW) == 0:
        return pd.DataFrame({"i": [], "j": [], "correlation": [], "kind": []}).astype(
            {"i": int, "j": int, "correlation": float, "kind": str}
        )
    numbers = np.arange(len(fingerprints_NHW))
    searchable = _searchable(fingerprints_NHW, numbers if parts_N is None else parts_N)
    blocks = _blocks(numbers, _IMAGES)
    with workers(processes, _set_searched, searchable) as map_items:
        pairs = pd.concat(map_items(_roughly_alike_ones, blocks))
        # The better of the two directions is kept.
        pairs = pairs.sort_values(["i", "j", "correlation"], kind="stable")
        pairs = pairs.drop_duplicates(["i", "j"], keep="last", ignore_index=True)
        pairs = pd.concat(map_items(_alike, _blocks(pairs, _PAIRS)), ignore_index=True)
    return pairs[list(_COLUMNS)]


def joined(count: int, pairs: np.ndarray) -> np.ndarray:
    """(count,) int labels of the connected components of (pairs, 2) links."""
    links = coo_array((np.ones(len(pairs), dtype=bool), (pairs[:, 0], pairs[:, 1])), (count, count))
    return connected_components(links, directed=False)[1].astype(int)


@dataclass(frozen=True)
class _Searchable:
    """Images at full and half size, their parts, content boxes and hashes of the whole content."""

    images_NHW: np.ndarray
    parts_N: np.ndarray
    halves_NHW: np.ndarray
    boxes_N4: np.ndarray
    hashes_ND: np.ndarray


# The images that this process searches.
_searched: _Searchable


def _set_searched(searchable: _Searchable) -> None:
    global _searched
    _searched = searchable


def _searchable(images_NHW: np.ndarray, parts_N: np.ndarray) -> _Searchable:
    halves, boxes, hashes = [], [], []
    for part in _blocks(images_NHW, _IMAGES):
        halves.append(_halved(part))
        boxes.append(content_boxes(part))
        hashes.append(_window_hashes(part, boxes[-1], windows=1)[0])
    arrays = (np.concatenate(blocks) for blocks in (halves, boxes, hashes))
    return _Searchable(images_NHW, parts_N, *arrays)


def _blocks(items: Sliced, length: int) -> Iterator[Sliced]:
    """Consecutive parts of an array or a table; one empty part if it is empty."""
    for start in range(0, max(len(items), 1), length):
        yield items[start : start + length]


def _roughly_alike_ones(block: np.ndarray) -> pd.DataFrame:
    """Pairs with an image of a block as ``theirs`` that pass the rough comparison.

    Candidates stay in the worker: there may be a hundred for each pair that passes.
    """
    candidates = _candidates(block)
    return pd.concat([_roughly_alike(part) for part in _blocks(candidates, _ROUGH_PAIRS)])


def _candidates(block: np.ndarray) -> pd.DataFrame:
    """Pairs of which ``ours``, whole, looks like ``window`` of ``theirs``, an image of a block."""
    images_NHW, boxes_N4 = _searched.images_NHW[block], _searched.boxes_N4[block]
    compared = _searched.parts_N[block, None] != _searched.parts_N
    found = []
    for window, hashes_MD in enumerate(_window_hashes(images_NHW, boxes_N4, len(_WINDOWS))):
        similarity = hashes_MD @ _searched.hashes_ND.T
        theirs, ours = np.nonzero((similarity > CANDIDATE_SIMILARITY) & compared)
        part = {"ours": ours, "theirs": block[theirs], "window": window}
        found.append(pd.DataFrame(part | {"similarity": similarity[theirs, ours]}))
    pairs = pd.concat(found, ignore_index=True)
    # The most similar window of each pair.
    pairs = pairs.sort_values(["theirs", "ours", "similarity", "window"])
    pairs = pairs.drop_duplicates(["theirs", "ours"], keep="last", ignore_index=True)
    both = pairs[["ours", "theirs"]].to_numpy()
    return pairs.assign(i=both.min(axis=1), j=both.max(axis=1))


def _window_hashes(images_NHW: np.ndarray, boxes_N4: np.ndarray, windows: int) -> np.ndarray:
    """(windows, N, D) hashes of the first windows of each image's content; the first is all."""
    content_NHW = view(images_NHW, boxes_N4, _CONTENT_PX)
    kernels = hash_kernels(_RADIUS, _WINDOW_PX)
    hashes = []
    for window in _WINDOWS[:windows] * _CONTENT_PX:
        down, across = (
            sampling(window[k, None], window[k + 1, None], _WINDOW_PX, _CONTENT_PX)[0]
            for k in (0, 2)
        )
        window_NHW = detail(down @ content_NHW @ across.T, _WINDOW_PX / _RADIUS)
        hashes.append(unit(window_NHW.reshape(len(images_NHW), -1) @ kernels))
    return np.stack(hashes)


def _roughly_alike(pairs: pd.DataFrame) -> pd.DataFrame:
    """The pairs whose rough detail is the same, with its ``correlation`` and where ours lies."""
    halves, boxes_N4 = _searched.halves_NHW, _searched.boxes_N4
    found = _within(boxes_N4[pairs["theirs"]], _WINDOWS[pairs["window"]])
    for grid, threshold in _COARSE:
        ours, theirs = pairs["ours"].to_numpy(), pairs["theirs"].to_numpy()
        found, correlation = align(
            halves[ours], boxes_N4[ours] / 2, halves[theirs], found / 2, grid
        )
        alike = correlation > threshold
        pairs = pairs[alike].assign(correlation=correlation[alike])
        found = found[alike] * 2
    return pairs.assign(**dict(zip(_BOX, found.T, strict=True)))


def _alike(pairs: pd.DataFrame) -> pd.DataFrame:
    """The pairs whose detail is the same in all of the common part and in its middle."""
    images, boxes_N4 = _searched.images_NHW, _searched.boxes_N4
    ours, theirs = pairs["ours"].to_numpy(), pairs["theirs"].to_numpy()
    found = pairs[list(_BOX)].to_numpy(dtype=np.float32)
    for grid in _FINE:
        found, correlation = align(images[ours], boxes_N4[ours], images[theirs], found, grid)
    # Two screenshots may match in their surround alone, so the middle must match too.
    middle_ours, middle_theirs = (_within(b, _MIDDLE) for b in (boxes_N4[ours], found))
    _, middle = align(images[ours], middle_ours, images[theirs], middle_theirs, _FINEST)
    apart = np.abs(found - boxes_N4[theirs]).max(axis=1, initial=0)
    kind = np.where(apart < 0.04 * FINGERPRINT_PX, "frame", "crop")
    alike = (correlation > SAME_CORRELATION) & (middle > SAME_IN_THE_MIDDLE)
    return pairs.assign(correlation=correlation, kind=kind)[alike]


def _halved(images_NHW: np.ndarray) -> np.ndarray:
    """(N, height / 2, width / 2) uint8 means of two by two pixels."""
    wide = images_NHW.astype(np.uint16)
    rows = wide[:, ::2] + wide[:, 1::2]
    return ((rows[:, :, ::2] + rows[:, :, 1::2] + 2) // 4).astype(np.uint8)


def _within(boxes_N4: np.ndarray, windows_N4: np.ndarray) -> np.ndarray:
    """(N, 4) windows, given as parts of boxes, in pixels."""
    low, length = boxes_N4[:, ::2], boxes_N4[:, 1::2] - boxes_N4[:, ::2]
    edges = np.empty_like(boxes_N4)
    edges[:, ::2] = low + windows_N4[:, ::2] * length
    edges[:, 1::2] = low + windows_N4[:, 1::2] * length
    return edges
