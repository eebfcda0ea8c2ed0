"""Images opened by an explicit list of formats and decoded with a size limit."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from stdiff.runtime.errors import InputError

# Larger than any scanner's frame, small enough that a decompression bomb cannot fill memory.
MAX_PIXELS = 64_000_000
# Formats that Pillow decodes by itself.
IMAGE_FORMATS = ("PNG", "JPEG", "BMP", "TIFF")


def encode_png(grey_HW: np.ndarray) -> bytes:
    """8-bit grey PNG of a (height, width) uint8 array."""
    if grey_HW.dtype != np.uint8 or grey_HW.ndim != 2:
        raise ValueError(f"expected a 2-D uint8 array, got {grey_HW.dtype} {grey_HW.shape}")
    buffer = io.BytesIO()
    # Speckle does not repeat: run-length matching only (Z_RLE) took 40 % of the time and made no
    # larger files.
    Image.fromarray(grey_HW).save(buffer, format="PNG", compress_type=3)
    return buffer.getvalue()


def decode_png(data: bytes, name: str = "PNG", *, check_sums: bool = False) -> np.ndarray:
    """(height, width) uint8 array of a table's cell.

    Args:
        data: an 8-bit grey PNG of one frame, as :func:`encode_png` makes it.
        name: for messages.
        check_sums: also compare the check sums of the pixel data, which decoding does not.

    Raises:
        InputError: anything else, damaged, or above ``MAX_PIXELS``.
    """
    if check_sums:
        with _opened(io.BytesIO(data), name, ("PNG",)) as image:
            image.verify()
    with _opened(io.BytesIO(data), name, ("PNG",)) as image:
        if found := _not_plain_grey(image, data):
            raise InputError(f"{name}: {found}; expected an 8-bit grey PNG")
        return np.asarray(image)


def _not_plain_grey(image: Image.Image, data: bytes) -> str | None:
    """What a PNG holds beside 8-bit grey levels; other programs would show it differently."""
    depth, colour_type = data[24:26]  # of its header
    if image.mode != "L" or (depth, colour_type) != (8, 0):
        return f"mode {image.mode} with {depth} bits a channel"
    if image.has_transparency_data:
        return "transparent pixels"
    if _frames_of(image) > 1:
        return f"{_frames_of(image)} frames"
    return "an EXIF orientation" if _orientation_of(image) != 1 else None


def read_image(path: Path) -> Image.Image:
    """A decoded image in its own mode, turned the way that viewers show it.

    Its ``info["orientation"]`` is the file's EXIF orientation, 1 to 8; 1 = as stored.

    Args:
        path: PNG, JPEG, BMP or TIFF by its content, whatever its name.

    Raises:
        InputError: unreadable, truncated, not such an image, above ``MAX_PIXELS``, or of several
            frames.
    """
    with _opened(path, str(path)) as image:
        if (count := _frames_of(image)) > 1:
            raise InputError(
                f"{path}: holds {count} frames (pages) instead of one; save the one that you mean "
                "as a file of its own"
            )
        orientation = _orientation_of(image)
        shown = ImageOps.exif_transpose(image)
        shown.info["orientation"] = orientation
        return shown


def image_size_px(path: Path) -> tuple[int, int]:
    """(width, height) as stored, from the file's header alone.

    Raises:
        InputError: as of :func:`read_image`.
    """
    with _opened(path, str(path)) as image:
        return image.size


@contextmanager
def _opened(
    source: Path | io.BytesIO, name: str, formats: Sequence[str] = IMAGE_FORMATS
) -> Iterator[Image.Image]:
    """An image with at most ``MAX_PIXELS`` pixels, not yet decoded; errors name it.

    Images are opened here only. Without a list of formats Pillow goes by content, and starts
    Ghostscript for an EPS file called ``.png``.
    """
    try:
        # Not by its path: Pillow would map a turned TIFF into memory at the wrong width.
        handle = source.open("rb") if isinstance(source, Path) else source
        with handle, Image.open(handle, formats=formats) as image:
            if image.width * image.height > MAX_PIXELS:
                raise InputError(
                    f"{name}: {image.width} x {image.height} pixels; the limit is {MAX_PIXELS}"
                )
            yield image
    except InputError:
        raise
    except Image.DecompressionBombError as error:  # Pillow's own limit, above ours
        raise InputError(f"{name}: {error}; the limit is {MAX_PIXELS}") from error
    except UnidentifiedImageError as error:
        raise InputError(
            f"{name}: cannot be read as an image: not {' or '.join(formats)} by its content"
        ) from error
    # Damaged files make decoders raise errors of any kind.
    except Exception as error:
        raise InputError(f"{name}: cannot be read as an image ({error})") from error


def _frames_of(image: Image.Image) -> int:
    return getattr(image, "n_frames", 1)


def _orientation_of(image: Image.Image) -> int:
    """EXIF orientation, 1 to 8; to be asked before a TIFF is decoded, which turns it."""
    found = image.getexif().get(ExifTags.Base.Orientation, 1)
    return found if found in range(1, 9) else 1
