"""Masks as label images of two classes, as segmentation frameworks read them."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from stdiff.export.selection import Case
from stdiff.runtime.files import InputError, decode_png, encode_png


def write_pair(case: Case, image: Path, label: Path) -> None:
    """Write the image as it is stored, and its mask with 0 = background and 1 = lesion.

    Raises:
        InputError: the mask is missing, cannot be decoded, or is of another size than the image.
    """
    image_png, mask_png = case.pixels("image"), case.pixels("mask")
    if image_png is None or mask_png is None:
        raise InputError(f"{case.row['case_id']}: image or mask missing")
    try:
        mask_HW, size = decode_png(mask_png), decode_png(image_png).shape
    except (OSError, SyntaxError, ValueError) as error:
        raise InputError(
            f"{case.row['case_id']}: cannot be decoded ({error}); verify the table"
        ) from error
    if mask_HW.shape != size:
        raise InputError(
            f"{case.row['case_id']}: the mask is {mask_HW.shape}, the image {size} (height, "
            "width); verify the table"
        )
    image.write_bytes(image_png)
    label.write_bytes(encode_png((mask_HW > 127).astype(np.uint8)))
