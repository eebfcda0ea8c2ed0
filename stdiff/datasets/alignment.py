"""Where a mask belongs on its image, if the two files differ in size or are turned."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from PIL import Image

from stdiff.runtime.files import InputError

# From pixels as stored to pixels as seen, by EXIF orientation, and back.
_SEEN: dict[int, Callable[[np.ndarray], np.ndarray]] = {
    1: lambda stored: stored,
    2: np.fliplr,
    3: lambda stored: np.rot90(stored, 2),
    4: np.flipud,
    5: np.transpose,
    6: lambda stored: np.rot90(stored, -1),
    7: lambda stored: np.rot90(stored, 2).T,
    8: np.rot90,
}
_STORED = _SEEN | {6: _SEEN[8], 8: _SEEN[6]}


def aligned_with_turned(
    mask_HW: np.ndarray, mask_turn: int, size_px: tuple[int, ...], image_turn: int
) -> np.ndarray:
    """The mask on the image as seen, where image and mask are turned differently.

    The mask was drawn either on what one sees or on the pixels as stored. Its size tells which; if
    it does not, nothing does.

    Args:
        mask_HW: (height, width) bool as seen.
        mask_turn: the EXIF orientation of its file.
        size_px: (height, width) of the image as seen.
        image_turn: the EXIF orientation of its file.

    Raises:
        InputError: both or neither is possible.
    """
    drawn_on_stored = _SEEN[image_turn](_STORED[mask_turn](mask_HW))
    fitting = [drawn for drawn in (mask_HW, drawn_on_stored) if drawn.shape == size_px]
    if not fitting or not np.array_equal(fitting[0], fitting[-1]):
        raise InputError(
            f"the EXIF orientation is {image_turn} for the image and {mask_turn} for the mask, and "
            f"the mask fits {'both ways' if fitting else 'neither way'}; save both files as one "
            "sees them, without an orientation"
        )
    return np.ascontiguousarray(fitting[0])


def rescaled(mask_HW: np.ndarray, size_px: tuple[int, ...]) -> tuple[np.ndarray, list[str]]:
    """A mask of another size at the image's (height, width), and its flags.

    A different aspect ratio is flagged too: the frame was stretched to a network's input.

    Raises:
        InputError: it has the aspect ratio of the image turned by a quarter.
    """
    height, width = size_px
    stretched = not _has_aspect(mask_HW.shape, height, width)
    if stretched and _has_aspect(mask_HW.shape, width, height):
        raise InputError(
            f"mask of {mask_HW.shape[1]} x {mask_HW.shape[0]} px for an image of {width} x "
            f"{height} px: it seems to be turned by a quarter; save both files the same way up"
        )
    resized = Image.fromarray(mask_HW).resize((width, height), Image.Resampling.NEAREST)
    return np.asarray(resized), ["mask_resized", *(["mask_stretched"] if stretched else [])]


def _has_aspect(mask_size_px: tuple[int, ...], height: int, width: int) -> bool:
    """Whether sizes differ by scale only, but for half a pixel of rounding in the smaller mask."""
    mask_height, mask_width = mask_size_px
    slack = max(height, width) / min(mask_height, mask_width)
    return abs(height - width * mask_height / mask_width) <= slack
