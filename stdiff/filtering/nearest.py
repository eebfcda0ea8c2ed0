"""The training image most like a given image: normalised cross-correlation at 64 px."""

from __future__ import annotations

import numpy as np
import torch
from torch.nn import functional as F  # noqa: N812

_SIDE_PX = 64
_BLOCK = 512


def nearest_training(
    images_NHW: np.ndarray, training_NHW: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Index of the most similar training image, (N,), and the correlation with it, in [-1, 1].

    Args:
        images_NHW: uint8 images.
        training_NHW: uint8 training images, at least one; each is compared mirrored left to
            right as well, because training shows it so.

    An image of one grey level correlates 0 with everything.
    """
    return most_correlated(standardised(images_NHW), standardised(training_NHW))


def most_correlated(
    images_NHW: torch.Tensor, training_MHW: torch.Tensor
) -> tuple[np.ndarray, np.ndarray]:
    """:func:`nearest_training` of images that :func:`standardised` has prepared."""
    images = images_NHW.flatten(1)
    nearest = torch.zeros(len(images), dtype=torch.long)
    highest = torch.full((len(images),), -torch.inf)
    for start in range(0, len(training_MHW), _BLOCK):
        block_MHW = training_MHW[start : start + _BLOCK]
        correlation = torch.maximum(
            images @ block_MHW.flatten(1).T, images @ block_MHW.flip(-1).flatten(1).T
        )
        value, index = correlation.max(dim=1)
        better = value > highest
        highest[better], nearest[better] = value[better], index[better] + start
    return nearest.numpy(), highest.clamp(-1, 1).numpy()


def standardised(images_NHW: np.ndarray) -> torch.Tensor:
    """(N, 64, 64) float32 of zero mean and unit length, of uint8 images of any size."""
    blocks = [torch.zeros((0, _SIDE_PX, _SIDE_PX))]
    for start in range(0, len(images_NHW), _BLOCK):
        grey_N1HW = torch.from_numpy(images_NHW[start : start + _BLOCK, None]).float()
        small = F.interpolate(
            grey_N1HW, (_SIDE_PX, _SIDE_PX), mode="bilinear", antialias=True, align_corners=False
        )[:, 0]
        centred = small - small.mean(dim=(1, 2), keepdim=True)
        length = centred.flatten(1).norm(dim=1)[:, None, None]
        # Rounding leaves a trace of a flat image; it must not be blown up to unit length.
        blocks.append(torch.where(length > 1e-2, centred / length.clamp(min=1e-2), 0.0))
    return torch.cat(blocks)
