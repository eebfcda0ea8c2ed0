"""A mask lies on its lesion or is refused, however image and mask are turned or scaled."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageOps

from stdiff.datasets.alignment import aligned_with_turned, rescaled
from stdiff.datasets.pixels import read_picture, read_pixels
from stdiff.datasets.readers import read_raw
from stdiff.runtime.files import InputError

TURNS = range(1, 9)
LESION_HW = np.zeros((6, 10), bool)
LESION_HW[1:3, 1:4] = True
LESION_HW[1, 5] = True  # no symmetry


def seen(stored_HW, turn):
    """What a viewer shows of stored pixels, by Pillow."""
    image = Image.fromarray(stored_HW.astype(np.uint8))
    image.getexif()[0x0112] = turn
    return np.asarray(ImageOps.exif_transpose(image)).astype(stored_HW.dtype)


def save_turned(path, stored_HW, turn):
    exif = Image.Exif()
    exif[0x0112] = turn
    path.parent.mkdir(exist_ok=True)
    Image.fromarray(stored_HW).save(path, exif=exif)


@given(st.sampled_from(TURNS), st.sampled_from(TURNS), st.booleans(), st.booleans())
def test_a_mask_never_lies_elsewhere(image_turn, mask_turn, on_stored, square):
    stored_HW = LESION_HW[:, :6] if square else LESION_HW
    # The file of the mask holds what was drawn, turned back by the mask's own orientation.
    drawn_HW = stored_HW if on_stored else seen(stored_HW, image_turn)
    as_file = drawn_HW if on_stored else seen(drawn_HW, {6: 8, 8: 6}.get(mask_turn, mask_turn))
    shown_HW = seen(as_file, mask_turn)
    truth_HW = seen(stored_HW, image_turn)
    try:
        found_HW = aligned_with_turned(shown_HW, mask_turn, truth_HW.shape, image_turn)
    except InputError as error:
        assert "fits both ways" in str(error)
    else:
        assert np.array_equal(found_HW, truth_HW)


@pytest.mark.parametrize("turn", [5, 6, 7, 8])
@pytest.mark.parametrize("drawn_on", ["what one sees", "stored pixels"])
def test_the_size_of_the_mask_tells_what_it_was_drawn_on(tmp_path, draw, turn, drawn_on):
    save_turned(tmp_path / "images" / "a.png", draw.speckle(1), turn)
    mask_HW = draw.disc(x=20)
    as_seen = drawn_on == "what one sees"
    draw.save(tmp_path / "masks" / "a.png", seen(mask_HW, turn) if as_seen else mask_HW)
    (case,), _ = read_raw("folder", tmp_path)
    pixels = read_pixels(case)
    assert np.array_equal(pixels.picture.grey_HW, seen(draw.speckle(1), turn))
    assert np.array_equal(pixels.mask_HW, seen(mask_HW, turn))
    assert pixels.flags == ("turned",)


@pytest.mark.parametrize(("turn", "height"), [(2, 60), (3, 60), (4, 60), (6, 80)])
def test_a_mask_that_fits_both_ways_is_refused(tmp_path, draw, turn, height):
    save_turned(tmp_path / "images" / "a.png", draw.speckle(1, height), turn)
    draw.save(tmp_path / "images" / "b.png", draw.speckle(2))
    draw.save(tmp_path / "masks" / "a.png", draw.disc(height, x=20))
    kept, reasons = draw.usable("folder", tmp_path)
    assert kept == ["folder/b"]
    assert "fits both ways; save both files as one sees them" in reasons["images/a.png"]


def test_both_files_turned_alike_fit(tmp_path, draw):
    for name, pixels in (("images", draw.speckle(1)), ("masks", draw.disc() * np.uint8(255))):
        save_turned(tmp_path / name / "a.png", pixels, 3)
    (case,), _ = read_raw("folder", tmp_path)
    assert np.array_equal(read_pixels(case).mask_HW, seen(draw.disc(), 3))


def test_a_picture_without_a_mask_is_turned_as_well(tmp_path, draw):
    save_turned(tmp_path / "a.png", draw.speckle(1), 6)
    found = read_picture(tmp_path / "a.png")
    assert np.array_equal(found.grey_HW, seen(draw.speckle(1), 6)) and found.flags == ("turned",)


@pytest.mark.parametrize("scale", [1, 2, 0.5])
def test_a_mask_turned_by_a_quarter_is_not_stretched(scale):
    mask_HW = np.zeros((int(80 * scale), int(60 * scale)), bool)
    with pytest.raises(InputError, match="for an image of 80 x 60 px: it seems to be turned"):
        rescaled(mask_HW, (60, 80))
