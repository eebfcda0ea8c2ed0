"""Masks as label images of two classes, as segmentation frameworks read them."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from stdiff.export.selection import Case
from stdiff.runtime.files import InputError
from stdiff.runtime.images import decode_png, encode_png


def write_pair(case: Case, image: Path, label: Path) -> None:
    """Write the image as it is stored, and its mask with 0 = background and 1 = lesion.

    Raises:
        InputError: image or mask is missing, or see :meth:`Case.pixels`.
    """
    image_png, mask_png = case.pixels("image"), case.pixels("mask")
    if image_png is None or mask_png is None:
        raise InputError(f"{case.row['case_id']}: image or mask missing")
    image.write_bytes(image_png)
    label.write_bytes(encode_png((decode_png(mask_png) == 255).astype(np.uint8)))
