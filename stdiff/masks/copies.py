"""Near-copies: masks that equal a known one after moving, scaling or mirroring."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.ndimage import affine_transform, center_of_mass

from stdiff.birads.shape import largest_and_count
from stdiff.runtime.files import InputError

NEAR_COPY_IOU = 0.95

# Aligned lesions have a fifth of the raster's area: ellipses with axes of up to 1 : 4 fit.
_RASTER_PX = 64
_RASTER_AREA_PX = _RASTER_PX**2 / 5


class KnownLesions:
    """Lesions that a new one must not copy.

    Two lesions are near-copies if their intersection over union is above a threshold after
    alignment of centroid and area, mirrored left to right or not. Ovals of equal axes are alike, so
    real masks have near-copies too. Copies of lesions below about 700 pixels may be missed, for
    scaling costs them overlap.

    Raises:
        InputError: no mask, or one that holds no lesion.
    """

    def __init__(self, masks_NHW: Sequence[np.ndarray], iou: float = NEAR_COPY_IOU) -> None:
        """``masks_NHW``: of any sizes, non-zero on lesions; the largest lesion of each counts."""
        if not len(masks_NHW):
            raise InputError("near-copies need at least one training mask, found none")
        lesions = (lesion_of(mask_HW, index)[0] for index, mask_HW in enumerate(masks_NHW))
        aligned = np.stack([_aligned(lesion_HW) for lesion_HW in lesions])
        self._iou = iou
        self._bits = _packed(np.concatenate([aligned, aligned[:, :, ::-1]]))
        self._areas = np.bitwise_count(self._bits).sum(axis=1, dtype=np.int64)

    def has_copy(self, lesion_HW: np.ndarray) -> bool:
        """Whether one lesion is a near-copy of a known one."""
        bits = _packed(_aligned(lesion_HW)[None])
        overlap = np.bitwise_count(self._bits & bits).sum(axis=1, dtype=np.int64)
        union = self._areas + np.bitwise_count(bits).sum(dtype=np.int64) - overlap
        return bool((overlap > self._iou * union).any())


def near_copies(
    generated_NHW: np.ndarray, training_NHW: np.ndarray, iou: float = NEAR_COPY_IOU
) -> float:
    """Share of generated masks whose largest lesion is a near-copy of that of a training mask.

    See :class:`KnownLesions`; compare with the share among held-out real masks.

    Raises:
        InputError: a set is empty, or a mask holds no lesion.
    """
    if not len(generated_NHW) or not len(training_NHW):
        raise InputError(
            f"{len(generated_NHW)} generated and {len(training_NHW)} training masks; "
            "near-copies need at least one of each"
        )
    known = KnownLesions(training_NHW, iou)
    lesions = (lesion_of(mask_HW, index)[0] for index, mask_HW in enumerate(generated_NHW))
    return float(np.mean([known.has_copy(lesion_HW) for lesion_HW in lesions]))


def lesion_of(mask_HW: np.ndarray, index: int) -> tuple[np.ndarray, int]:
    """The largest lesion and the number of lesions of a mask; `index` is for the error."""
    lesion_HW, count = largest_and_count(mask_HW)
    if not count:
        raise InputError(f"mask {index} (from 0) holds no lesion; leave out masks without one")
    return lesion_HW, count


def _aligned(lesion_HW: np.ndarray) -> np.ndarray:
    """One lesion as (64, 64) bool, with its centroid in the middle, scaled to a fixed area."""
    rows, columns = (np.flatnonzero(lesion_HW.any(axis=axis)) for axis in (1, 0))
    box = lesion_HW[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].astype(np.float32)
    step_px = np.sqrt(box.sum() / _RASTER_AREA_PX)  # pixels of the mask per pixel of the raster
    corner_px = np.array(center_of_mass(box)) - step_px * (_RASTER_PX - 1) / 2
    frame = {"output_shape": (_RASTER_PX, _RASTER_PX), "order": 1, "mode": "grid-constant"}
    return affine_transform(box, [step_px, step_px], corner_px, **frame) > 0.5


def _packed(aligned_NHW: np.ndarray) -> np.ndarray:
    """(N, 64) uint64 with a bit for each pixel."""
    return np.packbits(aligned_NHW.reshape(len(aligned_NHW), -1), axis=1).view(np.uint64)
