"""Pixels of a raw case, decoded to grey image and mask and compared with its metadata.

Both are turned the way that viewers show the image (EXIF orientation).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageChops

from stdiff.birads.implausible import mask_doubts
from stdiff.datasets.alignment import aligned_with_turned, rescaled
from stdiff.datasets.dicom import is_dicom, read_dicom
from stdiff.datasets.raw import RawCase, relative
from stdiff.runtime.files import InputError
from stdiff.runtime.images import read_image

# Flags of masks that cannot be a lesion's begin so.
IMPLAUSIBLE = "implausible_mask: "
_HALF = 127
_MIN_SIDE_PX, _MAX_ASPECT = 8, 20
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
            ``turned`` if the file says so.
        turn: the EXIF orientation that was applied, 1 to 8; 1 = none.
    """

    grey_HW: np.ndarray
    rgb_HWC: np.ndarray | None = None
    flags: tuple[str, ...] = ()
    turn: int = 1


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
    _refuse_strip(image_HW.shape, relative(case.image_path, case.root))
    if case.stated_size_px not in (None, image_HW.shape):
        flags.append("csv_size_mismatch")
    mask_HW = np.zeros(image_HW.shape, dtype=bool) if case.lesion_free else None
    for path in case.mask_paths:
        image = _decoded(path)
        one_HW = _coloured_mask(image, path, case) if case.mask_colours else _mask_of(image, path)
        one_HW, repairs = _aligned(one_HW, image.info["orientation"], picture, case, path)
        flags += repairs
        mask_HW = one_HW if mask_HW is None else mask_HW | one_HW
    if mask_HW is not None and mask_HW.any() == case.lesion_free:
        name = ", ".join(relative(path, case.root) for path in case.mask_paths)
        if case.lesion_free:
            raise InputError(f"{name}: marks a lesion, but the image is of class normal")
        raise InputError(
            f"{name}: the mask is empty, but the image is not known to be normal "
            f"(pathology {case.findings.pathology})"
        )
    if mask_HW is not None:
        flags += [f"{IMPLAUSIBLE}{doubt}" for doubt in mask_doubts(mask_HW)]
    if case.stated_box_px and mask_HW is not None and box_of(mask_HW) != case.stated_box_px:
        flags.append("bbox_mismatch")
    return Pixels(picture, mask_HW, tuple(sorted(set(flags))))


def _refuse_strip(size_px: tuple[int, ...], name: str) -> None:
    """Refuse what is too thin to be a frame: there is nothing to measure in it."""
    if min(size_px) < _MIN_SIDE_PX or max(size_px) > _MAX_ASPECT * min(size_px):
        raise InputError(
            f"{name}: {size_px[1]} x {size_px[0]} px; expected a frame with sides of at least "
            f"{_MIN_SIDE_PX} px, one at most {_MAX_ASPECT} times the other"
        )


def _aligned(
    mask_HW: np.ndarray, turn: int, picture: Picture, case: RawCase, path: Path
) -> tuple[np.ndarray, list[str]]:
    """The mask of a file, turned by ``turn``, at the picture's size, and what was done to it."""
    name, size_px = relative(path, case.root), picture.grey_HW.shape
    try:
        if turn != picture.turn:
            return aligned_with_turned(mask_HW, turn, size_px, picture.turn), []
        if mask_HW.shape == size_px:
            return mask_HW, []
        if case.mask_may_be_scaled:
            return rescaled(mask_HW, size_px)
    except InputError as error:
        raise InputError(f"{name}: {error}") from error
    (height, width), (mask_height, mask_width) = size_px, mask_HW.shape
    raise InputError(
        f"{name}: mask of {mask_width} x {mask_height} px for an image of {width} x {height} px; "
        "how they align is not guessed"
    )


def box_of(mask_HW: np.ndarray) -> tuple[int, int, int, int]:
    """0-based inclusive (x_min, y_min, x_max, y_max) in pixels of a mask that is not empty."""
    left, top, width, height = cv2.boundingRect(mask_HW.astype(np.uint8))
    return left, top, left + width - 1, top + height - 1


def read_picture(path: Path) -> Picture:
    """An image as grey levels, and its colours where it has any.

    Raises:
        InputError: unreadable, or deeper than 8 bits a channel.
    """
    image = _decoded(path)
    turn = image.info["orientation"]
    transparent = _has_transparency(image)
    flags = [*(["transparent_pixels"] if transparent else []), *(["turned"] if turn != 1 else [])]
    if image.mode in _GREY_MODES and not transparent:
        return Picture(np.asarray(image.convert("L")), None, tuple(flags), turn)
    rgb = _on_black(image, path)
    red, green, blue = rgb.split()
    differ = any(ImageChops.difference(red, other).getbbox() for other in (green, blue))
    grey, colours = (rgb.convert("L"), np.asarray(rgb)) if differ else (red, None)
    return Picture(np.asarray(grey), colours, tuple(flags), turn)


def read_mask(path: Path) -> np.ndarray:
    """(height, width) boolean mask: brightest channel above 127, transparent pixels being black.

    A mask of two levels, one of them 0, is a mask at any level: 0 and 1 as well as 0 and 255.

    Raises:
        InputError: unreadable, or more than two levels and none above 127.
    """
    return _mask_of(_decoded(path), path)


def _decoded(path: Path) -> Image.Image:
    return read_dicom(path) if is_dicom(path) else read_image(path)


def _mask_of(image: Image.Image, path: Path) -> np.ndarray:
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


def _coloured_mask(image: Image.Image, path: Path, case: RawCase) -> np.ndarray:
    """(height, width) boolean mask of the pixels in the colour of the case's pathology."""
    rgb_HWC = np.asarray(_on_black(image, path))
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
