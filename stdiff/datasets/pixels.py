"""Pixels of a raw case: decoded to grey and mask, and held against what the metadata claim."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from stdiff.datasets.raw import RawCase, relative
from stdiff.files import InputError, read_image


@dataclass(frozen=True)
class Pixels:
    """Decoded pixels of a case at native geometry; ``mask_HW`` is None when unlabelled."""

    image_HW: np.ndarray  # noqa: N815
    mask_HW: np.ndarray | None  # noqa: N815
    flags: tuple[str, ...]


def read_pixels(case: RawCase) -> Pixels:
    """Decode a case and compare it with what its metadata claim.

    Raises:
        InputError: unreadable file, mask of another size, mask empty or filled against the class.
    """
    image_HW, colour = read_grey(case.image_path)
    flags = [*case.flags, *(["colour"] if colour else [])]
    if case.stated_size_px not in (None, image_HW.shape):
        flags.append("csv_size_mismatch")
    mask_HW = np.zeros(image_HW.shape, dtype=bool) if case.lesion_free else None
    for path in case.mask_paths:
        one_HW = read_mask(path)
        if one_HW.shape != image_HW.shape:
            one_HW = _rescaled(one_HW, image_HW.shape, case, path)
            flags.append("mask_resized")
        mask_HW = one_HW if mask_HW is None else mask_HW | one_HW
    if mask_HW is not None and mask_HW.any() == case.lesion_free:
        name = ", ".join(relative(path, case.root) for path in case.mask_paths)
        if case.lesion_free:
            raise InputError(f"{name}: marks a lesion, but the image is of class normal")
        raise InputError(
            f"{name}: the mask is empty, but the image is not known to be normal "
            f"(pathology {case.findings.pathology})"
        )
    if case.stated_box_px and mask_HW is not None and _box_of(mask_HW) != case.stated_box_px:
        flags.append("bbox_mismatch")
    return Pixels(image_HW, mask_HW, tuple(sorted(set(flags))))


def _rescaled(
    mask_HW: np.ndarray, size_px: tuple[int, ...], case: RawCase, path: Path
) -> np.ndarray:
    """A mask of equal aspect ratio at the image's size, where the reader allows it."""
    (height, width), (mask_height, mask_width) = size_px, mask_HW.shape
    # Half a pixel of rounding in the smaller mask is no other aspect ratio.
    slack = max(height, width) / min(mask_height, mask_width)
    if not case.mask_may_be_scaled or abs(height - width * mask_height / mask_width) > slack:
        raise InputError(
            f"{relative(path, case.root)}: mask of {mask_width} x {mask_height} px for an image "
            f"of {width} x {height} px; how they align is not guessed"
        )
    resized = Image.fromarray(mask_HW).resize((width, height), Image.Resampling.NEAREST)
    return np.asarray(resized)


def _box_of(mask_HW: np.ndarray) -> tuple[int, int, int, int]:
    ys, xs = np.nonzero(mask_HW)
    return int(xs.min()), int(ys.min()), int(xs.max()), int(ys.max())


def read_grey(path: Path) -> tuple[np.ndarray, bool]:
    """(height, width) uint8 grey levels of an image, and whether it is truly coloured.

    Transparent pixels are laid on black. A three-channel image with equal channels is grey.

    Raises:
        InputError: unreadable, or deeper than 8 bits a channel.
    """
    image = read_image(path)
    if image.mode in ("1", "L"):
        return np.asarray(image.convert("L")), False
    if image.mode not in ("RGB", "RGBA", "LA", "P", "PA"):
        raise InputError(f"{path}: mode {image.mode}; expected 8-bit grey, RGB or RGBA")
    flat = _on_black(image)
    channels_HWC = np.asarray(flat)
    colour = bool((channels_HWC != channels_HWC[..., :1]).any())
    return np.asarray(flat.convert("L")), colour


def read_mask(path: Path) -> np.ndarray:
    """(height, width) boolean mask: grey level above 127, transparent pixels being black."""
    return read_grey(path)[0] > 127


def _on_black(image: Image.Image) -> Image.Image:
    """RGB image with transparency composited on black."""
    rgba = image.convert("RGBA")
    black = Image.new("RGBA", image.size, (0, 0, 0, 255))
    return Image.alpha_composite(black, rgba).convert("RGB")
