"""Are new masks training masks moved, scaled or mirrored?"""

from __future__ import annotations

import numpy as np
from scipy.ndimage import affine_transform, center_of_mass

from stdiff.files import InputError
from stdiff.masks.shape import separate

NEAR_COPY_IOU = 0.95

# Aligned lesions have a fifth of the raster: an ellipse fits as long as its axes are within 1 : 4.
_RASTER_PX = 64
_RASTER_AREA_PX = _RASTER_PX**2 / 5
_BLOCK = 512


def near_copies(
    generated_NHW: np.ndarray, training_NHW: np.ndarray, iou: float = NEAR_COPY_IOU
) -> float:
    """Share of generated masks that overlap some training mask by more than ``iou``.

    Intersection over union of the largest lesions after alignment: centroid in the middle, areas
    equal, mirrored left to right or not. Any oval is like any other of the same axes: the reference
    is what real masks held out give in place of the generated ones. A copy that was scaled loses
    some overlap to the pixels: lesions below about 700 of them may be missed.

    Raises:
        InputError: a set is empty, or a mask holds no lesion.
    """
    if not len(generated_NHW) or not len(training_NHW):
        raise InputError(
            f"{len(generated_NHW)} generated and {len(training_NHW)} training masks; copies can "
            "only be looked for with at least one of each"
        )
    generated_NP = _aligned(generated_NHW).reshape(len(generated_NHW), -1)
    best_N = np.zeros(len(generated_NP))
    # Floats only for a block at a time: the whole matrices would be four times the bytes.
    for first in range(0, len(training_NHW), _BLOCK):
        training_MHW = _aligned(training_NHW[first : first + _BLOCK], first).astype(np.float32)
        for sides_MHW in (training_MHW, training_MHW[:, :, ::-1]):
            sides_MP = sides_MHW.reshape(len(training_MHW), -1)
            for start in range(0, len(generated_NP), _BLOCK):
                block_NP = generated_NP[start : start + _BLOCK].astype(np.float32)
                overlap_NM = block_NP @ sides_MP.T
                union_NM = block_NP.sum(axis=1)[:, None] + sides_MP.sum(axis=1) - overlap_NM
                best = best_N[start : start + _BLOCK]
                np.maximum(best, (overlap_NM / union_NM).max(axis=1), out=best)
    return float((best_N > iou).mean())


def lesion_of(mask_HW: np.ndarray, index: int) -> tuple[np.ndarray, int]:
    """The largest lesion and the number of lesions of a mask that has one."""
    lesion_HW, count = separate(mask_HW)
    if not count:
        raise InputError(f"mask {index} (from 0) holds no lesion; leave out masks without one")
    return lesion_HW, count


def _aligned(masks_NHW: np.ndarray, first: int = 0) -> np.ndarray:
    """Largest lesions (N, 64, 64) bool, centroid in the middle, of equal area where they fit."""
    aligned_NHW = np.zeros((len(masks_NHW), _RASTER_PX, _RASTER_PX), dtype=bool)
    for index, mask_HW in enumerate(masks_NHW):
        lesion_HW = lesion_of(mask_HW, first + index)[0].astype(np.float32)
        step_px = np.sqrt(lesion_HW.sum() / _RASTER_AREA_PX)  # of the mask, a pixel of the raster
        corner_px = np.array(center_of_mass(lesion_HW)) - step_px * (_RASTER_PX - 1) / 2
        frame = {"output_shape": aligned_NHW.shape[1:], "order": 1, "mode": "grid-constant"}
        soft_HW = affine_transform(lesion_HW, [step_px, step_px], corner_px, **frame)
        aligned_NHW[index] = soft_HW > 0.5
    return aligned_NHW
