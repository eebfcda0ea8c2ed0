"""Lesion crops of frames in other collections, found by content.

A crop shows about a tenth of its frame, so the search for near-duplicates misses it. Here the
square middle of each crop is searched in every frame, at scales from half to twice the native one,
by the perceptual hash of 16 x 16 px patches. The best patch gives a rough position; the crop is
aligned there and its whole detail compared.
"""

from __future__ import annotations

import cv2
import numpy as np
import pandas as pd

from stdiff.near_duplicates.alignment import Grid, align
from stdiff.near_duplicates.fingerprint import (
    FINGERPRINT_PX,
    NOISE_GREY,
    hash_kernels,
    unit,
    whole,
)
from stdiff.runtime.workers import workers

SAME_CORRELATION = 0.86
CANDIDATE_SIMILARITY = 0.62
# Range of the factor by which a crop may have been resized against its frame.
_SMALLEST_SCALE, _LARGEST_SCALE = 0.5, 2.0
_STAGES = ((Grid(16, 2.0, 3), 0.60), (Grid(32, 4.0, 4), SAME_CORRELATION))
_PATCH_PX = 16
_STRIDE_PX = 2
_RADIUS = 7
_LEVEL_RATIO = 1.22
# Fingerprint pixels across a patch below which it holds too little detail to be recognised.
_SMALLEST_PATCH_PX = 7
# Pairs or crops at once, and frames per task.
_BLOCK = 512
_FRAMES = 16
_BOX = ("top_px", "bottom_px", "left_px", "right_px")


def crop_pairs(
    crops_MHW: np.ndarray,
    crop_native_px: np.ndarray,
    frames_NHW: np.ndarray,
    frame_native_px: np.ndarray,
    processes: int = 1,
    parts: tuple[np.ndarray, np.ndarray] | None = None,
) -> pd.DataFrame:
    """Crops and the frames that they were cut from, sorted. A pair depends on its images alone.

    Args:
        crops_MHW: (M, 96, 96) uint8 fingerprints of the crops.
        crop_native_px: (M, 2) height and width of the crops as they came.
        frames_NHW: (N, 96, 96) uint8 fingerprints of the frames.
        frame_native_px: (N, 2) height and width of the frames as they came.
        processes: worker processes; the result does not depend on it.
        parts: (M,) and (N,) part that each crop and each frame belongs to; a crop is searched in
            the frames of other parts only. In all frames by default.

    Returns:
        ``crop``, ``frame`` (indices), ``correlation`` in (0.86, 1] and where the crop lies in
        the frame at its native size: ``top_px``, ``bottom_px``, ``left_px``, ``right_px``.
    """
    crop_native_px = np.asarray(crop_native_px, dtype=float).reshape(-1, 2)
    frame_native_px = np.asarray(frame_native_px, dtype=float).reshape(-1, 2)
    if not (len(crops_MHW) and len(frames_NHW)):
        return _table(np.zeros(0, int), np.zeros(0, int), np.zeros(0), np.zeros((0, 4)))
    hashes = np.stack([_middle_hash(*crop) for crop in zip(crops_MHW, crop_native_px, strict=True)])
    starts = range(0, len(frames_NHW), _FRAMES)
    blocks = [range(start, min(start + _FRAMES, len(frames_NHW))) for start in starts]
    # By default crops and frames are two parts.
    parts = parts or (np.zeros(len(crops_MHW)), np.ones(len(frames_NHW)))
    searched = crops_MHW, crop_native_px, hashes, frames_NHW, frame_native_px, *parts
    with workers(processes, _set_searched, *searched) as map_items:
        found = pd.concat(map_items(_pairs_in_frames, blocks))
    return found.sort_values(["crop", "frame"], ignore_index=True)


# This process's crops, their native sizes and hashes; frames and their native sizes; parts of both.
_searched: tuple[np.ndarray, ...]


def _set_searched(*arrays: np.ndarray) -> None:
    global _searched
    _searched = arrays


def _pairs_in_frames(frames: range) -> pd.DataFrame:
    """Pairs with one of a few frames."""
    crops_MHW, crop_native_px, hashes, frames_NHW, frame_native_px, *parts = _searched
    candidates = []
    for k in frames:
        some = np.flatnonzero(parts[0] != parts[1][k])
        crop, boxes = _candidates(
            hashes[some], crop_native_px[some], frames_NHW[k], frame_native_px[k]
        )
        candidates.append((some[crop], boxes))
    frame = np.repeat(list(frames), [len(crop) for crop, _ in candidates])
    crop, boxes = (np.concatenate(parts) for parts in zip(*candidates, strict=True))
    verified = [
        _verified(crops_MHW, frames_NHW, crop[part], frame[part], boxes[part])
        for part in (slice(k, k + _BLOCK) for k in range(0, max(len(crop), 1), _BLOCK))
    ]
    crop, frame, correlation, boxes = (np.concatenate(x) for x in zip(*verified, strict=True))
    scale = np.repeat(frame_native_px[frame] / FINGERPRINT_PX, 2, axis=1)
    return _table(crop, frame, correlation, boxes * scale)


def _table(
    crop: np.ndarray, frame: np.ndarray, correlation: np.ndarray, boxes_px: np.ndarray
) -> pd.DataFrame:
    columns = {"crop": crop, "frame": frame, "correlation": correlation.astype(np.float32)}
    columns |= {name: boxes_px[:, axis].astype(float) for axis, name in enumerate(_BOX)}
    return pd.DataFrame(columns)


def _detail_at(
    fingerprint_HW: np.ndarray, native_px: np.ndarray, patch_native_px: float
) -> np.ndarray:
    """Detail of an image at the size where ``patch_native_px`` are 16 px, with square pixels."""
    height, width = np.maximum(1, np.round(_PATCH_PX / patch_native_px * native_px)).astype(int)
    shrunk = min(height, width) < FINGERPRINT_PX
    image = cv2.resize(
        fingerprint_HW.astype(np.float32),
        (int(width), int(height)),
        interpolation=cv2.INTER_AREA if shrunk else cv2.INTER_LINEAR,
    )
    sigma_px = _PATCH_PX / 8
    difference = image - cv2.GaussianBlur(image, (0, 0), sigma_px)
    power = cv2.GaussianBlur(difference * difference, (0, 0), sigma_px) + NOISE_GREY**2
    return np.clip(difference / np.sqrt(power), -3, 3)


def _middle_hash(crop_HW: np.ndarray, native_px: np.ndarray) -> np.ndarray:
    """(D,) hash of the largest square in the middle of a crop."""
    detail_HW = _detail_at(crop_HW, native_px, native_px.min())
    top, left = (np.array(detail_HW.shape) - _PATCH_PX) // 2
    middle = detail_HW[top : top + _PATCH_PX, left : left + _PATCH_PX]
    return unit(middle.reshape(1, -1) @ hash_kernels(_RADIUS, _PATCH_PX))[0]


def _patches(
    frame_HW: np.ndarray, native_px: np.ndarray, patch_native_px: float
) -> tuple[np.ndarray, np.ndarray]:
    """Hashes (P, D) of all patches of one size in a frame, and their centres (P, 2), native px."""
    detail_HW = _detail_at(frame_HW, native_px, patch_native_px)
    patches = np.lib.stride_tricks.sliding_window_view(detail_HW, (_PATCH_PX, _PATCH_PX))
    patches = patches[::_STRIDE_PX, ::_STRIDE_PX]
    rows, columns = patches.shape[:2]
    hashes = unit(patches.reshape(rows * columns, -1) @ hash_kernels(_RADIUS, _PATCH_PX))
    corners = np.stack(np.mgrid[:rows, :columns], axis=-1).reshape(-1, 2) * _STRIDE_PX
    return hashes, (corners + _PATCH_PX / 2) * (native_px / detail_HW.shape)


def _patch_sizes_px(smallest_px: float, largest_px: float) -> np.ndarray:
    """Patch sizes in native px; the ladder is fixed, so no crop depends on another."""
    first, last = (np.log([smallest_px, largest_px]) / np.log(_LEVEL_RATIO)).round().astype(int)
    return _LEVEL_RATIO ** np.arange(first, last + 1.0)


def _candidates(
    hashes: np.ndarray, crop_native_px: np.ndarray, frame_HW: np.ndarray, native_px: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Crops (C,) that may stem from a frame, and where: boxes (C, 4) in fingerprint px."""
    if not len(hashes):
        return np.zeros(0, dtype=int), np.zeros((0, 4), dtype=np.float32)
    side_px = crop_native_px.min(axis=1)
    smallest_px = _SMALLEST_PATCH_PX * native_px.max() / FINGERPRINT_PX
    sizes_px = _patch_sizes_px(
        max(side_px.min() * _SMALLEST_SCALE, smallest_px),
        min(side_px.max() * _LARGEST_SCALE, native_px.min()),
    )
    best = np.full(len(hashes), CANDIDATE_SIMILARITY, dtype=np.float32)
    centre, scale = np.zeros((len(hashes), 2)), np.zeros(len(hashes))
    slack = np.sqrt(_LEVEL_RATIO)
    for size_px in sizes_px[sizes_px <= native_px.min()]:
        ratio = size_px / side_px
        fits = np.flatnonzero((ratio > _SMALLEST_SCALE / slack) & (ratio < _LARGEST_SCALE * slack))
        if not fits.size:
            continue
        patch_hashes, centres = _patches(frame_HW, native_px, size_px)
        for start in range(0, len(fits), _BLOCK):
            some = fits[start : start + _BLOCK]
            similarity = hashes[some] @ patch_hashes.T
            at = similarity.argmax(axis=1)
            highest = similarity[np.arange(len(some)), at]
            better = highest > best[some]
            some, at = some[better], at[better]
            best[some], centre[some], scale[some] = highest[better], centres[at], ratio[some]
    crop = np.flatnonzero(scale > 0)
    half_px = crop_native_px[crop] * scale[crop, None] / 2
    edges = np.stack([centre[crop] - half_px, centre[crop] + half_px], axis=-1)
    boxes = edges * (FINGERPRINT_PX / native_px)[:, None]
    return crop, boxes.reshape(-1, 4).astype(np.float32)


def _verified(
    crops_MHW: np.ndarray,
    frames_NHW: np.ndarray,
    crop: np.ndarray,
    frame: np.ndarray,
    boxes: np.ndarray,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Candidates (crop, frame) above the thresholds, their correlation and their boxes."""
    correlation = np.zeros(len(crop), dtype=np.float32)
    for grid, threshold in _STAGES:
        boxes, correlation = align(
            crops_MHW[crop], whole(len(crop), FINGERPRINT_PX), frames_NHW[frame], boxes, grid
        )
        alike = correlation > threshold
        crop, frame, boxes, correlation = (
            values[alike] for values in (crop, frame, boxes, correlation)
        )
    return crop, frame, correlation, boxes
