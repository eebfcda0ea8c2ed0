"""Overlap, surface distances and detection per case, with a rule for empty masks.

Both masks empty: all metrics are NaN, left out of means and counted. One mask empty: overlap,
sensitivity and precision are 0, distances are the image diagonal. MONAI returns NaN there, which
would *improve* the mean HD95 when lesions are missed.
"""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
import torch
from skimage.measure import label

from stdiff.runtime.files import InputError

# Smallest IoU with a predicted lesion at which a true one counts as detected, as in PI-CAI (Saha et
# al. 2024, Lancet Oncol. 25:879-887).
_DETECTION_IOU = 0.1

# MONAI 1.5 passes its own deprecated argument.
warnings.filterwarnings("ignore", ".*always_return_as_numpy", FutureWarning)


def case_metrics(
    predicted_NHW: np.ndarray, lesion_NHW: np.ndarray, spacing_mm_N2: np.ndarray | None = None
) -> pd.DataFrame:
    """Metrics with one row per case.

    Args:
        predicted_NHW: Predicted masks; values above 0 are lesion.
        lesion_NHW: True masks of the same shape.
        spacing_mm_N2: (height, width) of a pixel in mm, NaN where unknown; None = unknown for all.

    Returns:
        ``dice``, ``iou``, ``sensitivity``, ``precision``: of pixels, in [0, 1].
        ``hd95_px``: the larger of the two directed 95th percentiles of edge-to-edge distances;
        ``assd_px``: their mean over both edges, both in pixels of these masks; ``hd95_mm``,
        ``assd_mm``: in mm, NaN where the spacing is unknown.
        ``lesions``, ``lesions_found``, ``false_lesions``: number of connected regions (8
        neighbours) of the true mask; of those with an IoU of at least 0.1 with a predicted region;
        and of predicted regions without such a match.
        ``lesion_pixels``, ``predicted_pixels``.

    Raises:
        InputError: the shapes differ.
    """
    if predicted_NHW.shape != lesion_NHW.shape:
        raise InputError(
            f"predicted masks are {predicted_NHW.shape}, true masks {lesion_NHW.shape}; expected "
            "equal shapes"
        )
    predicted, lesion = predicted_NHW > 0, lesion_NHW > 0
    predicted_pixels, lesion_pixels = predicted.sum(axis=(1, 2)), lesion.sum(axis=(1, 2))
    overlap = (predicted & lesion).sum(axis=(1, 2))
    either = (predicted | lesion).sum(axis=(1, 2))
    hd95_px, assd_px = _distances(predicted, lesion)
    hd95_mm, assd_mm = np.full((2, len(either)), np.nan)
    if spacing_mm_N2 is not None:
        known = np.isfinite(spacing_mm_N2).all(axis=1)
        hd95_mm[known], assd_mm[known] = _distances(
            predicted[known], lesion[known], spacing_mm_N2[known]
        )
    pairs = zip(predicted, lesion, strict=True)
    detection = np.array([_detection(*pair) for pair in pairs], int).reshape(-1, 3)
    return pd.DataFrame(
        {
            "dice": case_dice(predicted, lesion),
            "iou": _share(overlap, either, either),
            "sensitivity": _share(overlap, lesion_pixels, either),
            "precision": _share(overlap, predicted_pixels, either),
            "hd95_px": hd95_px,
            "assd_px": assd_px,
            "hd95_mm": hd95_mm,
            "assd_mm": assd_mm,
            "lesions": detection[:, 0],
            "lesions_found": detection[:, 1],
            "false_lesions": detection[:, 2],
            "lesion_pixels": lesion_pixels,
            "predicted_pixels": predicted_pixels,
        }
    )


def case_dice(predicted_NHW: np.ndarray, lesion_NHW: np.ndarray) -> np.ndarray:
    """Dice (N,) of masks whose values above 0 are lesion; NaN where both are empty."""
    predicted, lesion = predicted_NHW > 0, lesion_NHW > 0
    overlap = (predicted & lesion).sum(axis=(1, 2))
    total = predicted.sum(axis=(1, 2)) + lesion.sum(axis=(1, 2))
    return _share(2 * overlap, total, total)


def _share(part: np.ndarray, whole: np.ndarray, either: np.ndarray) -> np.ndarray:
    """part / whole; 0 where ``whole`` is 0, NaN where both masks are empty."""
    empty = np.where(either > 0, 0.0, np.nan)
    return np.divide(part, whole, out=empty, where=whole > 0)


def _distances(
    predicted: np.ndarray, lesion: np.ndarray, spacing_N2: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """95th percentile of the Hausdorff distance and mean surface distance (N,).

    In the unit of ``spacing_N2``, the (height, width) of each case's pixels; in pixels if None.
    """
    is_predicted, is_lesion = predicted.any(axis=(1, 2)), lesion.any(axis=(1, 2))
    sizes_N2 = np.ones((len(lesion), 2)) if spacing_N2 is None else spacing_N2
    hd95 = np.hypot(*(sizes_N2 * lesion.shape[1:]).T)
    hd95[~is_predicted & ~is_lesion] = np.nan
    assd = hd95.copy()
    both = is_predicted & is_lesion
    if both.any():
        # Slow to import.
        from monai.metrics.hausdorff_distance import compute_hausdorff_distance
        from monai.metrics.surface_distance import compute_average_surface_distance

        masks = [torch.from_numpy(m[both, None]) for m in (predicted, lesion)]
        options = {
            "include_background": True,
            "spacing": None if spacing_N2 is None else spacing_N2[both].tolist(),
        }
        hd95[both] = compute_hausdorff_distance(*masks, percentile=95, **options).numpy()[:, 0]
        assd[both] = compute_average_surface_distance(*masks, symmetric=True, **options).numpy()[
            :, 0
        ]
    return hd95, assd


def _detection(predicted_HW: np.ndarray, lesion_HW: np.ndarray) -> tuple[int, int, int]:
    """Numbers of true lesions, detected lesions and false detections."""
    regions, lesions = label(predicted_HW, connectivity=2), label(lesion_HW, connectivity=2)
    shape = regions.max() + 1, lesions.max() + 1
    pixels = np.bincount(regions.ravel() * shape[1] + lesions.ravel(), minlength=np.prod(shape))
    pixels = pixels.reshape(shape)
    overlap = pixels[1:, 1:]
    union = pixels.sum(axis=1)[1:, None] + pixels.sum(axis=0)[None, 1:] - overlap
    matched = overlap >= _DETECTION_IOU * union
    return shape[1] - 1, int(matched.any(axis=0).sum()), int((~matched.any(axis=1)).sum())
