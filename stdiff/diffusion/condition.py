"""The condition image of a mask for the ControlNet.

A mask alone, as published, only marks the pixels of a lesion. The signed distance adds the distance
to its edge, and the boundary the edge itself, so that the first convolutions need not learn them.
The soft mask shows an indistinct margin as a blurred edge. All work for several lesions and for
lesions cut by the image border.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from scipy import ndimage

from stdiff.birads.lexicon import parse

# Plain diffusers pipelines take an RGB image.
CONDITION_CHANNELS = 3
# Distance at which the signed distance saturates, as a fraction of the image side.
_REACH = 0.25
# Standard deviation of the blur of an indistinct edge, as a fraction of the image side.
_INDISTINCT = 0.02


def condition_image(
    masks_NHW: np.ndarray, kinds: Sequence[str], captions: Sequence[str] = ()
) -> torch.Tensor:
    """(N, 3, H, W) float32 condition of the ControlNet, in [0, 1].

    Values are multiples of 1/255, so that saving the condition as an 8-bit image loses nothing.

    Args:
        masks_NHW: (N, H, W), non-zero on lesions.
        kinds: channels: "mask" (0 or 1), "soft mask" (see :func:`soft_mask`), "distance" (see
            :func:`signed_distance`) and "boundary" (see :func:`boundary`); repeated to make
            three.
        captions: captions of the masks; a soft mask is blurred only if its caption says that the
            margin is indistinct.
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
    """(H, W) float32 in [0, 1]: the lesion, blurred by a Gaussian of 2 % of the image height.

    A lesion cut by the image border is assumed to continue beyond it.
    """
    sigma_px = _INDISTINCT * lesion_HW.shape[0]
    return ndimage.gaussian_filter(lesion_HW.astype(np.float32), sigma_px, mode="nearest")


def signed_distance(lesion_HW: np.ndarray) -> np.ndarray:
    """(H, W) float32 in [0, 1]: above 1/2 inside lesions, below outside; 0 without a lesion.

    1/2 ± the Euclidean distance to the edge over half the image height, clipped. The image border
    is no edge.
    """
    if not lesion_HW.any():
        return np.zeros(lesion_HW.shape, np.float32)
    outside_px = ndimage.distance_transform_edt(~lesion_HW)
    inside_px = ndimage.distance_transform_edt(lesion_HW)
    if lesion_HW.all():  # no edge in the image
        inside_px = np.full(lesion_HW.shape, np.inf)
    # The edge lies between two pixels, half a pixel from each.
    signed_px = np.where(lesion_HW, inside_px - 0.5, 0.5 - outside_px)
    reach_px = _REACH * lesion_HW.shape[0]
    return (0.5 + signed_px / (2 * reach_px)).clip(0, 1).astype(np.float32)


def boundary(lesion_HW: np.ndarray) -> np.ndarray:
    """(H, W) float32: 1 on lesion pixels of which one of the 8 neighbours is no lesion, else 0.

    The image border is no boundary: a lesion cut by it is assumed to continue.
    """
    inner_HW = ndimage.binary_erosion(lesion_HW, np.ones((3, 3)), border_value=1)
    return (lesion_HW & ~inner_HW).astype(np.float32)


_DRAWN: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "mask": lambda lesion_HW: lesion_HW.astype(np.float32),
    "soft mask": lambda lesion_HW: lesion_HW.astype(np.float32),
    "distance": signed_distance,
    "boundary": boundary,
}
