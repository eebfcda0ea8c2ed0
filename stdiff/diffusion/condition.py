"""The picture of a mask that the ControlNet sees.

The mask alone, as published, says at a pixel only whether it lies in a lesion. The signed distance
also says how far from its edge, and the boundary where that edge runs, so that the first
convolutions need not find out. The soft mask has a blurred edge where the margin is indistinct,
which no mask can show. All take several lesions and masks cut by the image's border.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from scipy import ndimage

from stdiff.birads.lexicon import parse

# Plain pipelines take an RGB picture.
CONDITION_CHANNELS = 3
# Distance from the edge, as a part of the image's side, where the signed distance saturates.
_REACH = 0.25
# Standard deviation of the blur of an indistinct edge, likewise.
_INDISTINCT = 0.02


def condition_image(
    masks_NHW: np.ndarray, kinds: Sequence[str], captions: Sequence[str] = ()
) -> torch.Tensor:
    """(N, 3, H, W) float32 condition of the ControlNet, in [0, 1].

    Values are whole 255ths, so that a condition saved as a picture is the same condition.

    Args:
        masks_NHW: (N, H, W), non-zero on lesions.
        kinds: channels, of "mask" (0 or 1), "soft mask" (see :func:`soft_mask`), "distance" (see
            :func:`signed_distance`) and "boundary" (see :func:`boundary`); repeated until there
            are three.
        captions: of the masks, for soft ones; without them no margin is known to be indistinct.
    """
    lesions_NHW = masks_NHW > 0
    drawn = {
        kind: torch.from_numpy(np.stack([_DRAWN[kind](lesion) for lesion in lesions_NHW]))
        for kind in set(kinds)
    }
    if "soft mask" in drawn:
        for number, caption in enumerate(captions):
            if "indistinct" in parse(caption).margin:
                drawn["soft mask"][number] = torch.from_numpy(soft_mask(lesions_NHW[number]))
    channels = [drawn[kinds[i % len(kinds)]] for i in range(CONDITION_CHANNELS)]
    return (torch.stack(channels, dim=1) * 255).round() / 255


def soft_mask(lesion_HW: np.ndarray) -> np.ndarray:
    """(H, W) float32 in [0, 1]: the lesion with the edge of an indistinct margin.

    A Gaussian blur of :data:`_INDISTINCT` of the height; a lesion cut by the image's border goes on
    behind it.
    """
    sigma_px = _INDISTINCT * lesion_HW.shape[0]
    return ndimage.gaussian_filter(lesion_HW.astype(np.float32), sigma_px, mode="nearest")


def signed_distance(lesion_HW: np.ndarray) -> np.ndarray:
    """(H, W) float32 in [0, 1]: above 1/2 within a lesion, below it without.

    1/2 ± the Euclidean distance from the edge over twice :data:`_REACH` of the height, cut off
    at 0 and 1. What lies beyond the image's border is not known and has no edge. All zero without
    a lesion.
    """
    if not lesion_HW.any():
        return np.zeros(lesion_HW.shape, np.float32)
    outside_px = ndimage.distance_transform_edt(~lesion_HW)
    # A lesion that fills the image has no edge in it.
    inside_px = (
        np.full(lesion_HW.shape, np.inf)
        if lesion_HW.all()
        else ndimage.distance_transform_edt(lesion_HW)
    )
    # The edge runs between two pixels, half a pixel from either.
    signed_px = np.where(lesion_HW, inside_px - 0.5, 0.5 - outside_px)
    reach_px = _REACH * lesion_HW.shape[0]
    return (0.5 + signed_px / (2 * reach_px)).clip(0, 1).astype(np.float32)


def boundary(lesion_HW: np.ndarray) -> np.ndarray:
    """(H, W) float32: 1 on lesion pixels with a neighbour, of eight, that is none, else 0.

    The image's border is no boundary: a lesion that it cuts goes on behind it.
    """
    inner_HW = ndimage.binary_erosion(lesion_HW, np.ones((3, 3)), border_value=1)
    return (lesion_HW & ~inner_HW).astype(np.float32)


_DRAWN: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "mask": lambda lesion_HW: lesion_HW.astype(np.float32),
    "soft mask": lambda lesion_HW: lesion_HW.astype(np.float32),
    "distance": signed_distance,
    "boundary": boundary,
}
