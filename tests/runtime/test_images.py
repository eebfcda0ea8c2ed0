"""Images are opened in one place, by named formats, one frame of them, as viewers show them."""

import ast
import io
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from stdiff.runtime.files import InputError
from stdiff.runtime.images import IMAGE_FORMATS, decode_png, encode_png, read_image

ROOT = Path(__file__).parents[2]
GREY_HW = np.random.default_rng(0).integers(0, 255, (6, 4), dtype=np.uint8)
# Calls that open an image by its content: of Pillow, OpenCV, matplotlib, scikit-image, diffusers.
_OPENERS = {"imread", "imreadmulti", "imdecode", "imdecodemulti", "load_image", "decode_image"}


def openers(path: Path) -> list[str]:
    """``file:line`` of each call that opens an image, Pillow's ``open`` under any name included."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    pillow = {
        name.asname or name.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("PIL")
        for name in node.names
    }
    found = []
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        called = ast.unparse(node.func).split(".")
        of_pillow = called[0] in {"PIL", *pillow} and called[-1] in {"open", "Parser"}
        if of_pillow or called[-1] in _OPENERS:
            found.append(f"{path.relative_to(ROOT)}:{node.lineno}")
    return found


def test_images_are_opened_in_one_place():
    folders = ("stdiff", "bench", "workflow", "snakemake_logger_plugin_stdiff")
    files = [path for folder in folders for path in (ROOT / folder).rglob("*.py")]
    (place,) = [place for path in files for place in openers(path)]
    assert place.startswith("stdiff/runtime/images.py:")


def test_content_that_would_start_another_program_is_refused(tmp_path, monkeypatch):
    started = tmp_path / "started"
    ghostscript = tmp_path / "bin" / "gs"
    ghostscript.parent.mkdir()
    ghostscript.write_text(f"#!/bin/sh\ntouch {started}\n")
    ghostscript.chmod(0o755)
    monkeypatch.setenv("PATH", f"{ghostscript.parent}{os.pathsep}{os.environ['PATH']}")
    eps = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\nshowpage\n%%EOF\n"
    path = tmp_path / "x.png"
    path.write_bytes(eps)
    with pytest.raises(InputError, match=r"x\.png: cannot be read.* not PNG or JPEG or BMP or TIF"):
        read_image(path)
    with pytest.raises(InputError, match="cannot be read as an image: not PNG by its content"):
        decode_png(eps)
    assert not started.exists()


@pytest.mark.parametrize("form", IMAGE_FORMATS)
def test_the_content_counts_and_not_the_name(tmp_path, form):
    path = tmp_path / "x.png"
    Image.fromarray(GREY_HW).save(path, format=form)
    assert read_image(path).size == (4, 6)


@pytest.mark.parametrize("form", ["GIF", "WEBP", "ICO", "PPM", "TGA", "PDF", "JPEG2000"])
def test_other_formats_are_refused_under_any_name(tmp_path, form):
    path = tmp_path / "x.png"
    Image.fromarray(GREY_HW).save(path, format=form)
    with pytest.raises(InputError, match=r"x\.png: cannot be read as an image"):
        read_image(path)


def test_decoders_that_raise_anything_are_one_line(tmp_path, monkeypatch):
    path = tmp_path / "x.png"
    Image.fromarray(GREY_HW).save(path)

    def raising(self):
        raise KeyError("of a decoder")

    monkeypatch.setattr("PIL.PngImagePlugin.PngImageFile.load", raising)
    with pytest.raises(InputError, match=r"x\.png: cannot be read as an image .*of a decoder"):
        read_image(path)


@pytest.mark.parametrize("form", ["PNG", "JPEG", "TIFF"])
@pytest.mark.parametrize("orientation", range(10))
def test_an_image_is_turned_as_viewers_show_it(tmp_path, form, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / "x"
    options = {"quality": 100} if form == "JPEG" else {}
    Image.fromarray(GREY_HW).save(path, format=form, exif=exif, **options)
    as_stored = Image.fromarray(GREY_HW)
    if form == "JPEG":
        plain = tmp_path / "plain.jpg"
        as_stored.save(plain, quality=100)
        as_stored = read_image(plain)
    as_stored.getexif()[0x0112] = orientation
    found = read_image(path)
    assert found.info["orientation"] == (orientation if 1 <= orientation <= 8 else 1)
    assert np.array_equal(np.asarray(found), np.asarray(ImageOps.exif_transpose(as_stored)))


@pytest.mark.parametrize("form", ["PNG", "TIFF", "MPO"])
def test_a_file_of_several_frames_is_refused_with_their_number(tmp_path, form):
    path = tmp_path / "clip.img"
    first, *others = (Image.fromarray(np.full((8, 8), level, np.uint8)) for level in (10, 90, 200))
    first.save(path, format=form, save_all=True, append_images=others)
    with pytest.raises(InputError, match=r"clip\.img: holds 3 frames"):
        read_image(path)


def _cell(image: Image.Image, form: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format=form, **options)
    return buffer.getvalue()


def _turned() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    return _cell(Image.fromarray(GREY_HW), exif=exif)


_GREY = Image.fromarray(GREY_HW)
NO_CELLS = {
    "a JPEG": (_cell(_GREY, "JPEG"), "not PNG by its content"),
    "a CMYK TIFF": (_cell(_GREY.convert("CMYK"), "TIFF"), "not PNG by its content"),
    "an SVG": (b"<svg xmlns='http://www.w3.org/2000/svg'><script/></svg>", "not PNG"),
    "nothing": (b"", "not PNG"),
    "colour": (_cell(_GREY.convert("RGB")), "mode RGB with 8 bits a channel"),
    "a palette": (_cell(_GREY.convert("P")), "mode P with 8 bits a channel"),
    "grey and alpha": (_cell(_GREY.convert("LA")), "mode LA"),
    "one bit": (_cell(_GREY.convert("1")), "mode 1 with 1 bits"),
    "16 bits": (_cell(Image.fromarray(GREY_HW.astype(np.uint16))), "with 16 bits a channel"),
    "a level that is transparent": (_cell(_GREY, transparency=3), "transparent pixels"),
    "two frames": (_cell(_GREY, save_all=True, append_images=[_GREY.rotate(180)]), "2 frames"),
    "turned": (_turned(), "an EXIF orientation"),
}


@pytest.mark.parametrize("what", NO_CELLS)
def test_a_cell_is_a_png_of_8_bit_grey_levels_and_nothing_else(what):
    data, said = NO_CELLS[what]
    with pytest.raises(InputError, match=f"a-mask.png: .*{said}"):
        decode_png(data, "a-mask.png")


def test_check_sums_of_a_cell_are_compared_if_asked():
    png = bytearray(encode_png(GREY_HW))
    at = png.index(b"IDAT") + 4 + int.from_bytes(png[png.index(b"IDAT") - 4 :][:4])
    png[at] ^= 1  # of the check sum itself: the pixels are whole
    assert np.array_equal(decode_png(bytes(png)), GREY_HW)
    with pytest.raises(InputError, match="cannot be read as an image"):
        decode_png(bytes(png), check_sums=True)
