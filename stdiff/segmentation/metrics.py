"""Dice, IoU and Hausdorff distance of single cases, with a rule for empty masks.

Both masks empty: there is nothing to overlap, all three are NaN (left out of means and counted).
One empty: Dice and IoU are 0, the distance is the image diagonal. MONAI says NaN there, and as
NaN leaves the mean, HD95 would *improve* when lesions are missed.
"""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import torch
from monai.metrics.hausdorff_distance import compute_hausdorff_distance

from stdiff.files import InputError


def case_metrics(predicted_NHW: np.ndarray, lesion_NHW: np.ndarray) -> pd.DataFrame:
    """One row a case: dice, iou, hd95_px, lesion_pixels, predicted_pixels.

    Args:
        predicted_NHW: Masks; every value above 0 is lesion.
        lesion_NHW: True masks of the same shape.

    ``hd95_px`` is the larger of the two directed 95th percentiles of edge-to-edge distances, in
    pixels of these masks.

    Raises:
        InputError: the shapes differ.
    """
    if predicted_NHW.shape != lesion_NHW.shape:
        raise InputError(
            f"predicted masks are {predicted_NHW.shape}, true masks {lesion_NHW.shape}; expected "
            "one of each for every case, of one size"
        )
    predicted, lesion = predicted_NHW > 0, lesion_NHW > 0
    predicted_pixels, lesion_pixels = predicted.sum(axis=(1, 2)), lesion.sum(axis=(1, 2))
    overlap = (predicted & lesion).sum(axis=(1, 2))
    either = (predicted | lesion).sum(axis=(1, 2))
    nothing = np.full(len(either), np.nan)
    return pd.DataFrame(
        {
            "dice": case_dice(predicted, lesion),
            "iou": np.divide(overlap, either, out=nothing, where=either > 0),
            "hd95_px": _hd95_px(predicted, lesion, predicted_pixels, lesion_pixels),
            "lesion_pixels": lesion_pixels,
            "predicted_pixels": predicted_pixels,
        }
    )


def case_dice(predicted_NHW: np.ndarray, lesion_NHW: np.ndarray) -> np.ndarray:
    """Dice (N,) of masks in which every value above 0 is lesion; NaN where both are empty."""
    predicted, lesion = predicted_NHW > 0, lesion_NHW > 0
    overlap = (predicted & lesion).sum(axis=(1, 2))
    total = predicted.sum(axis=(1, 2)) + lesion.sum(axis=(1, 2))
    return np.divide(2 * overlap, total, out=np.full(len(total), np.nan), where=total > 0)


def _hd95_px(
    predicted: np.ndarray,
    lesion: np.ndarray,
    predicted_pixels: np.ndarray,
    lesion_pixels: np.ndarray,
) -> np.ndarray:
    distances = np.full(len(lesion), math.hypot(*lesion.shape[1:]))
    distances[(predicted_pixels == 0) & (lesion_pixels == 0)] = np.nan
    both = (predicted_pixels > 0) & (lesion_pixels > 0)
    if both.any():
        distances[both] = compute_hausdorff_distance(
            torch.from_numpy(predicted[both, None]),
            torch.from_numpy(lesion[both, None]),
            include_background=True,
            percentile=95,
        )[:, 0].numpy()
    return distances
