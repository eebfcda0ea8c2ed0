"""Images and masks that are not what they seem cost one case, or are named; no run ends."""

import numpy as np
import pytest
from PIL import Image

from stdiff.datasets import rows
from stdiff.datasets.integrity import inspect_raw
from stdiff.datasets.readers import read_raw


@pytest.mark.parametrize("shape", [(1, 20_000), (20_000, 1), (4, 60), (20, 500)])
def test_a_strip_is_no_frame(tmp_path, draw, shape):
    draw.save(tmp_path / "images" / "a.png", np.full(shape, 90, np.uint8))
    draw.save(tmp_path / "masks" / "a.png", np.eye(*shape, dtype=np.uint8) * 255)
    draw.save(tmp_path / "images" / "b.png", draw.speckle(1))
    kept, reasons = draw.usable("folder", tmp_path)
    assert kept == ["folder/b"]
    assert f"a.png: {shape[1]} x {shape[0]} px; expected a frame" in reasons["images/a.png"]


@pytest.mark.parametrize("error", [RuntimeError("odd"), MemoryError(), KeyError("x"), OSError(28)])
def test_an_unexpected_error_costs_one_case_and_is_named(tmp_path, draw, monkeypatch, error):
    for key, stem in enumerate("ab"):
        draw.save(tmp_path / "images" / f"{stem}.png", draw.speckle(key))
    described = rows.read_pixels

    def failing(case):
        if case.case_id == "folder/a":
            raise error
        return described(case)

    monkeypatch.setattr(rows, "read_pixels", failing)
    cases, _ = read_raw("folder", tmp_path)
    problem, row = (rows.row_or_problem(case, rows.Harmonization(32)) for case in cases)
    assert row["case_id"] == "folder/b" and problem.source_path == "images/a.png"
    assert f"cannot be processed ({type(error).__name__}" in problem.reason


def test_a_file_of_several_pages_is_left_out_with_its_count(tmp_path, draw):
    pages = [Image.fromarray(draw.speckle(key)) for key in range(3)]
    (tmp_path / "images").mkdir()
    pages[0].save(tmp_path / "images" / "a.tif", save_all=True, append_images=pages[1:])
    draw.save(tmp_path / "images" / "b.png", draw.speckle(1))
    kept, reasons = draw.usable("folder", tmp_path)
    assert kept == ["folder/b"] and "holds 3 frames" in reasons["images/a.tif"]


def inverted(mask):
    return 255 - mask


def two_high_levels(mask):
    return np.where(mask > 0, 255, 254).astype(np.uint8)


def white_first(mask):
    picture = Image.fromarray(mask // 255, "P")
    picture.putpalette([255] * 3 + [0] * 765)
    return picture


def specks_only(mask):
    specks = np.zeros_like(mask)
    specks[::12, ::16] = 255
    return specks


@pytest.mark.parametrize("spoil", [inverted, two_high_levels, white_first, specks_only])
def test_masks_that_cannot_be_a_lesion_are_listed(tmp_path, draw, spoil):
    for stem in ("odd", "sound"):
        draw.save(tmp_path / "images" / f"{stem}.png", draw.speckle(len(stem)))
        draw.save(tmp_path / "masks" / f"{stem}.png", draw.disc() * np.uint8(255))
    spoiled = spoil(draw.disc() * np.uint8(255))
    image = spoiled if isinstance(spoiled, Image.Image) else Image.fromarray(spoiled)
    image.save(tmp_path / "masks" / "odd.png")
    (problem,) = inspect_raw("folder", tmp_path, tmp_path / "t.parquet").problems
    assert "odd" in problem and "implausible_mask" in problem


def test_simulated_and_drawn_masks_are_not(busi, bus_bra, tmp_path):
    for collection, raw in (("busi", busi), ("bus_bra", bus_bra)):
        for case in read_raw(collection, raw)[0]:
            assert not any("implausible" in flag for flag in rows.read_pixels(case).flags)
