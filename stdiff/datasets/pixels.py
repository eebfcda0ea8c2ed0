"""Pixels of a raw case, decoded to grey image and mask and compared with its metadata.

The EXIF orientation is ignored: masks are drawn on the pixels as stored.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageChops

from stdiff.datasets.raw import RawCase, relative
from stdiff.runtime.files import InputError, read_image

_HALF = 127
_GREY_MODES = ("1", "L")
_COLOUR_MODES = ("RGB", "RGBA", "LA", "P", "PA")
_DEEP_MODES = ("I;16", "I;16B", "I;16L", "I;16N", "I")


@dataclass(frozen=True)
class Picture:
    """A decoded image.

    Attributes:
        grey_HW: (height, width) uint8.
        rgb_HWC: (height, width, 3) uint8; None where all three channels are equal.
        flags: ``transparent_pixels`` if some were not opaque; these are composited on black.
    """

    grey_HW: np.ndarray
    rgb_HWC: np.ndarray | None = None
    flags: tuple[str, ...] = ()


@dataclass(frozen=True)
class Pixels:
    """Decoded pixels of a case at native geometry.

    Attributes:
        picture: the image.
        mask_HW: (height, width) bool; None when unlabelled.
        flags: contradictions between the files, and repairs.
    """

    picture: Picture
    mask_HW: np.ndarray | None
    flags: tuple[str, ...]


def read_pixels(case: RawCase) -> Pixels:
    """Decode a case and compare it with what its metadata claim.

    Raises:
        InputError: unreadable file, mask of another size, mask empty or filled against the class,
            mask of another colour than the collection's or than the case's class.
    """
    picture = read_picture(case.image_path)
    image_HW, flags = picture.grey_HW, [*case.flags, *picture.flags]
    if case.stated_size_px not in (None, image_HW.shape):
        flags.append("csv_size_mismatch")
    mask_HW = np.zeros(image_HW.shape, dtype=bool) if case.lesion_free else None
    for path in case.mask_paths:
        one_HW = _coloured_mask(path, case) if case.mask_colours else read_mask(path)
        if one_HW.shape != image_HW.shape:
            one_HW, resizing = _rescaled(one_HW, image_HW.shape, case, path)
            flags += resizing
        mask_HW = one_HW if mask_HW is None else mask_HW | one_HW
    if mask_HW is not None and mask_HW.any() == case.lesion_free:
        name = ", ".join(relative(path, case.root) for path in case.mask_paths)
        if case.lesion_free:
            raise InputError(f"{name}: marks a lesion, but the image is of class normal")
        raise InputError(
            f"{name}: the mask is empty, but the image is not known to be normal "
            f"(pathology {case.findings.pathology})"
        )
    if case.stated_box_px and mask_HW is not None and box_of(mask_HW) != case.stated_box_px:
        flags.append("bbox_mismatch")
    return Pixels(picture, mask_HW, tuple(sorted(set(flags))))


def _rescaled(
    mask_HW: np.ndarray, size_px: tuple[int, ...], case: RawCase, path: Path
) -> tuple[np.ndarray, list[str]]:
    """A mask of another size at the image's size, where the reader allows it, and its flags.

    A different aspect ratio is flagged too: the frame was stretched to a network's input.
    """
    (height, width), (mask_height, mask_width) = size_px, mask_HW.shape
    if not case.mask_may_be_scaled:
        raise InputError(
            f"{relative(path, case.root)}: mask of {mask_width} x {mask_height} px for an image "
            f"of {width} x {height} px; how they align is not guessed"
        )
    resized = Image.fromarray(mask_HW).resize((width, height), Image.Resampling.NEAREST)
    # Tolerates half a pixel of rounding in the smaller mask.
    slack = max(height, width) / min(mask_height, mask_width)
    stretched = abs(height - width * mask_height / mask_width) > slack
    return np.asarray(resized), ["mask_resized", *(["mask_stretched"] if stretched else [])]


def box_of(mask_HW: np.ndarray) -> tuple[int, int, int, int]:
    """0-based inclusive (x_min, y_min, x_max, y_max) in pixels of a mask that is not empty."""
    left, top, width, height = cv2.boundingRect(mask_HW.astype(np.uint8))
    return left, top, left + width - 1, top + height - 1


def read_picture(path: Path) -> Picture:
    """An image as grey levels, and its colours where it has any.

    Raises:
        InputError: unreadable, or deeper than 8 bits a channel.
    """
    image = read_image(path)
    transparent = _has_transparency(image)
    if image.mode in _GREY_MODES and not transparent:
        return Picture(np.asarray(image.convert("L")))
    rgb = _on_black(image, path)
    red, green, blue = rgb.split()
    differ = any(ImageChops.difference(red, other).getbbox() for other in (green, blue))
    flags = ("transparent_pixels",) if transparent else ()
    if differ:
        return Picture(np.asarray(rgb.convert("L")), np.asarray(rgb), flags)
    return Picture(np.asarray(red), None, flags)


def read_mask(path: Path) -> np.ndarray:
    """(height, width) boolean mask: brightest channel above 127, transparent pixels being black.

    A mask of two levels, one of them 0, is a mask at any level: 0 and 1 as well as 0 and 255.

    Raises:
        InputError: unreadable, or more than two levels and none above 127.
    """
    image = read_image(path)
    if image.mode in (*_GREY_MODES, *_DEEP_MODES) and not _has_transparency(image):
        levels_HW = np.asarray(image.convert("L") if image.mode in _GREY_MODES else image)
    else:
        # Channel by channel: numpy's maximum over the last axis takes ten times as long.
        red, green, blue = _on_black(image, path).split()
        levels_HW = np.asarray(ImageChops.lighter(ImageChops.lighter(red, green), blue))
    brightest = levels_HW.max()
    if ((levels_HW == 0) | (levels_HW == brightest)).all():
        return levels_HW > 0
    if image.mode in _DEEP_MODES or brightest <= _HALF:
        raise InputError(
            f"{path}: mask of more than two levels up to {brightest} (mode {image.mode}); expected "
            f"8 bits with the lesion above {_HALF}, or two levels, 0 and the lesion's"
        )
    return levels_HW > _HALF


def _coloured_mask(path: Path, case: RawCase) -> np.ndarray:
    """(height, width) boolean mask of the pixels in the colour of the case's pathology."""
    rgb_HWC = np.asarray(_on_black(read_image(path), path))
    name, colours = relative(path, case.root), case.mask_colours or {}
    mask_HW = np.zeros(rgb_HWC.shape[:2], dtype=bool)
    known_HW = mask_HW.copy()
    for colour, pathology in colours.items():
        here_HW = (rgb_HWC == colour).all(axis=2)
        known_HW |= here_HW
        if pathology is None or not here_HW.any():
            continue
        mask_HW |= here_HW
        if case.findings.pathology not in (None, pathology):
            raise InputError(
                f"{name}: colour {colour} marks a {pathology} lesion, but the image is labelled "
                f"{case.findings.pathology}"
            )
    if not known_HW.all():
        foreign = tuple(int(level) for level in rgb_HWC[~known_HW][0])
        expected = ", ".join(f"{c} {p or 'background'}" for c, p in colours.items())
        raise InputError(
            f"{name}: colour {foreign} in the mask ({(~known_HW).sum()} px of such colours); "
            f"expected {expected}"
        )
    return mask_HW


def _has_transparency(image: Image.Image) -> bool:
    """Whether any pixel is not opaque."""
    if not image.has_transparency_data:
        return False
    lowest, _ = image.convert("RGBA").getchannel("A").getextrema()
    return lowest < 255


def _on_black(image: Image.Image, path: Path) -> Image.Image:
    """RGB image with transparency composited on black.

    Raises:
        InputError: not of 8 bits a channel, or of channels that are not red, green and blue.
    """
    if image.mode in _DEEP_MODES or image.mode == "F":
        raise InputError(
            f"{path}: more than 8 bits a pixel (mode {image.mode}); expected 8-bit grey, RGB or "
            "RGBA: which of its levels should be black and white is not guessed, so convert it"
        )
    if image.mode not in (*_GREY_MODES, *_COLOUR_MODES):
        raise InputError(f"{path}: mode {image.mode}; expected 8-bit grey, RGB or RGBA")
    if not image.has_transparency_data:
        return image.convert("RGB")
    black = Image.new("RGBA", image.size, (0, 0, 0, 255))
    return Image.alpha_composite(black, image.convert("RGBA")).convert("RGB")
