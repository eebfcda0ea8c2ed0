import numpy as np
import pytest
from PIL import Image

from stdiff.birads.lexicon import Findings
from stdiff.datasets.pixels import read_pixels
from stdiff.datasets.readers import read_raw
from stdiff.runtime.files import InputError


@pytest.mark.parametrize("masks", ["masks", "masks/0"])
@pytest.mark.parametrize("table", ["metadata.csv", "our_patients.csv"])
def test_metadata(tmp_path, draw, masks, table):
    for key, stem in enumerate(("a", "b", "c.1")):
        draw.save(tmp_path / "images" / f"{stem}.png", draw.speckle(key))
    draw.save(tmp_path / masks / "a.png", (draw.disc() * 200).astype("uint8"))
    (tmp_path / table).write_text(
        "stem,patient_id,pathology,margin,pixel_spacing_mm,device\n"
        "a.png,7,malignant,angular & spiculated,0.1,Aplio\nb,7,normal,,,\n"
    )
    (a, b, c), problems = read_raw("folder", tmp_path)
    assert not problems
    assert a.findings == Findings(pathology="malignant", margin=("angular", "spiculated"))
    assert a.group_id == b.group_id != c.group_id
    assert (a.pixel_spacing_mm, a.annotated) == (0.1, ("pathology", "margin"))
    assert (a.device, b.device) == ("Aplio", None)
    assert b.lesion_free and not c.lesion_free
    assert c.case_id == "folder/c.1" and read_pixels(c).mask_HW is None
    assert (read_pixels(a).mask_HW == draw.disc()).all()


def test_first_st_diff_layout(tmp_path, draw):
    draw.save(tmp_path / "unlabeled" / "images" / "u.png", draw.speckle(1))
    draw.save(tmp_path / "labeled" / "images" / "x.png", draw.speckle(2))
    draw.save(tmp_path / "labeled" / "masks" / "x.png", draw.disc())
    text = tmp_path / "labeled" / "texts" / "x.txt"
    text.parent.mkdir()
    text.write_text("BI-RADS 4: irregular shape, hypoechoic")
    cases, problems = read_raw("folder", tmp_path)
    assert not problems
    assert [case.case_id for case in cases] == ["folder/u", "folder/x"]
    assert cases[1].findings.shape == "irregular" and cases[0].mask_paths == ()


def test_image_and_mask_of_different_formats(tmp_path, draw):
    draw.save(tmp_path / "images" / "a.jpg", draw.speckle(1))
    draw.save(tmp_path / "images" / "b.BMP", draw.speckle(2))
    draw.save(tmp_path / "masks" / "a.png", draw.disc())
    draw.save(tmp_path / "masks" / "b.tif", draw.disc())
    cases, problems = read_raw("folder", tmp_path)
    assert not problems
    for case in cases:
        assert (read_pixels(case).mask_HW == draw.disc()).all()


def test_grey_masks_are_cut_at_half(tmp_path, draw):
    draw.save(tmp_path / "images" / "a.png", draw.speckle(1))
    levels = np.arange(4800).reshape(60, 80) % 256
    draw.save(tmp_path / "masks" / "a.png", levels.astype(np.uint8))
    (case,), _ = read_raw("folder", tmp_path)
    assert (read_pixels(case).mask_HW == (levels >= 128)).all()


@pytest.mark.parametrize(("height", "width"), [(120, 160), (30, 40), (45, 60), (31, 41)])
def test_a_mask_of_another_size_is_brought_to_the_images(tmp_path, draw, height, width):
    draw.save(tmp_path / "images" / "a.png", draw.speckle(1))
    mask = Image.fromarray(draw.disc()).resize((width, height), Image.Resampling.NEAREST)
    draw.save(tmp_path / "masks" / "a.png", np.asarray(mask))
    (case,), _ = read_raw("folder", tmp_path)
    pixels = read_pixels(case)
    assert pixels.flags == ("mask_resized",)
    assert (pixels.mask_HW ^ draw.disc()).sum() < 0.2 * draw.disc().sum()


def test_a_mask_stretched_to_a_network_input_is_stretched_back_and_flagged(tmp_path, draw):
    draw.save(tmp_path / "images" / "a.png", draw.speckle(1))
    square = Image.fromarray(draw.disc()).resize((256, 256), Image.Resampling.NEAREST)
    draw.save(tmp_path / "masks" / "a.png", np.asarray(square))
    (case,), _ = read_raw("folder", tmp_path)
    pixels = read_pixels(case)
    assert pixels.flags == ("mask_resized", "mask_stretched")
    assert (pixels.mask_HW == draw.disc()).all()


def test_what_lies_there_and_is_not_understood_is_named(tmp_path, draw):
    draw.save(tmp_path / "images" / "x.png", draw.speckle(1))
    draw.save(tmp_path / "images" / "more" / "y.png", draw.speckle(2))
    draw.save(tmp_path / "masks" / "y_mask.png", draw.disc())
    draw.save(tmp_path / "masks" / "1" / "x.png", draw.disc())
    for name in ("images/Thumbs.db", "images/.hidden.png", "images/notes.txt", "masks/x.txt"):
        (tmp_path / name).write_text("hello")
    kept, reasons = draw.usable("folder", tmp_path)
    assert kept == ["folder/x"]
    expected = {
        "images/more": "a folder that is not read",
        "images/notes.txt": "expected a file of type .png",
        "masks/1": "a folder that is not read",
        "masks/x.txt": "expected a file of type .png",
        "masks/y_mask.png": "no image of the same stem; expected equal stems, e.g. images/x.png "
        "and masks/x.png or masks/x_mask.png",
    }
    assert set(reasons) == set(expected)
    assert all(part in reasons[path] for path, part in expected.items())


def test_metadata_that_is_wrong(tmp_path, draw):
    for key in range(3):
        draw.save(tmp_path / "images" / f"{key}.png", draw.speckle(key))
    draw.save(tmp_path / "masks" / "0.png", np.zeros_like(draw.disc()))
    draw.save(tmp_path / "masks" / "9.png", draw.disc())
    (tmp_path / "metadata.csv").write_text("stem,shape\n1,square\n8,oval\n")
    kept, reasons = draw.usable("folder", tmp_path)
    assert kept == ["folder/2"]
    assert "not known to be normal" in reasons["images/0.png"]
    assert "'square' is not a lexicon term" in reasons["images/1.png"]
    assert "no image of the same stem" in reasons["masks/9.png"]
    assert "'8'" in reasons["metadata.csv"]


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("stem,brads\n1,4\n", "brads are not known; rename"),
        ("name,birads\n1,4\n", "stem missing; found name, birads"),
        ("stem,birads\n1,4\n1.png,4\n", r"1 \(2 times\)"),
        ("stem,birads,birads\n1,4,5\n", r"header: must be unique.*birads \(2 times\)"),
    ],
)
def test_a_table_of_metadata_that_cannot_be_used(tmp_path, draw, table, message):
    draw.save(tmp_path / "images" / "1.png", draw.speckle(1))
    (tmp_path / "metadata.csv").write_text(table)
    with pytest.raises(InputError, match=message):
        read_raw("folder", tmp_path)


def test_of_several_tables_one_must_be_called_metadata(tmp_path, draw):
    draw.save(tmp_path / "images" / "1.png", draw.speckle(1))
    for name in ("a.csv", "b.csv"):
        (tmp_path / name).write_text("stem,birads\n1,4\n")
    with pytest.raises(InputError, match="several CSV files; call the one to be read metadata.csv"):
        read_raw("folder", tmp_path)
    (tmp_path / "metadata.csv").write_text("stem,birads\n1,5\n")
    (case,), problems = read_raw("folder", tmp_path)
    assert case.findings.birads == "5" and not problems


@pytest.mark.parametrize(("cell", "spacing"), [("0.08", 0.08), ("0,08", 0.08)])
def test_pixel_spacing(tmp_path, draw, cell, spacing):
    draw.save(tmp_path / "images" / "1.png", draw.speckle(1))
    (tmp_path / "metadata.csv").write_text(f"stem;pixel_spacing_mm\n1;{cell}\n")
    assert read_raw("folder", tmp_path)[0][0].pixel_spacing_mm == spacing
    (tmp_path / "metadata.csv").write_text("stem,pixel_spacing_mm\n1,80um\n")
    (problem,) = read_raw("folder", tmp_path)[1]
    assert "pixel_spacing_mm '80um'; expected millimetres" in problem.reason


def test_one_stem_twice(tmp_path, draw):
    draw.save(tmp_path / "images" / "a.png", draw.speckle(1))
    draw.save(tmp_path / "images" / "a.bmp", draw.speckle(2))
    with pytest.raises(InputError, match=r"images: file stem: must be unique.*a \(2 times\)"):
        read_raw("folder", tmp_path)


def test_one_stem_labelled_and_not(tmp_path, draw):
    for part in ("labeled", "unlabeled"):
        draw.save(tmp_path / part / "images" / "a.png", draw.speckle(1))
    with pytest.raises(InputError, match=r"folder/a \(2 times\)"):
        read_raw("folder", tmp_path)


def test_sixteen_bit_image_is_refused(tmp_path, draw):
    draw.save(tmp_path / "images" / "b.png", draw.speckle(1))
    draw.save(tmp_path / "images" / "a.png", draw.speckle(1).astype(np.uint16) * 256)
    kept, reasons = draw.usable("folder", tmp_path)
    assert kept == ["folder/b"]
    assert "more than 8 bits a pixel (mode I;16); expected 8-bit grey" in reasons["images/a.png"]


def test_texts_with_unknown_terms_or_bytes_are_named(tmp_path, draw):
    texts = {"a": b"BI-RADS 4: purple shape", "b": "Läsion".encode("latin-1"), "c": b"benign"}
    (tmp_path / "labeled" / "texts").mkdir(parents=True)
    for number, (stem, text) in enumerate(texts.items()):
        draw.save(tmp_path / "labeled" / "images" / f"{stem}.png", draw.speckle(number))
        draw.save(tmp_path / "labeled" / "masks" / f"{stem}.png", draw.disc())
        (tmp_path / "labeled" / "texts" / f"{stem}.txt").write_bytes(text)
    kept, reasons = draw.usable("folder", tmp_path)
    assert kept == ["folder/c"]
    assert "'purple shape' is not a lexicon term" in reasons["labeled/images/a.png"]
    assert "not UTF-8" in reasons["labeled/images/b.png"]


def test_missing_masks_mean_unlabelled_and_order_does_not_matter(tmp_path, draw):
    for folder, stems in (("forth", "abc"), ("back", "cba")):
        for stem in stems:
            draw.save(tmp_path / folder / "images" / f"{stem}.png", draw.speckle(ord(stem)))
        draw.save(tmp_path / folder / "masks" / "b.png", draw.disc())
    forth, back = (read_raw("folder", tmp_path / folder)[0] for folder in ("forth", "back"))
    described = [
        [(c.case_id, c.source_path, len(c.mask_paths)) for c in cs] for cs in (forth, back)
    ]
    assert described[0] == described[1]
    assert [count for _, _, count in described[0]] == [0, 1, 0]


@pytest.mark.parametrize("folder", ["masks", "Masks", "labels", "annotations", "gt", "GT/0"])
@pytest.mark.parametrize("ending", ["", "_mask", "_seg", "_gt", "_GT", "-mask", "_label"])
def test_usual_names_of_masks_are_known(tmp_path, draw, folder, ending):
    for key, stem in enumerate(("a", "b_1")):
        draw.save(tmp_path / "images" / f"{stem}.png", draw.speckle(key))
        draw.save(tmp_path / folder / f"{stem}{ending}.png", draw.disc())
    cases, problems = read_raw("folder", tmp_path)
    assert not problems
    assert [case.case_id for case in cases] == ["folder/a", "folder/b_1"]
    assert all((read_pixels(case).mask_HW == draw.disc()).all() for case in cases)


def test_masks_beside_their_images_are_no_images(tmp_path, draw):
    for key, stem in enumerate(("a", "b_gt")):
        draw.save(tmp_path / "images" / f"{stem}.png", draw.speckle(key))
    for name, x in (("a_mask.png", 30), ("a_mask_1.png", 50)):
        draw.save(tmp_path / "images" / name, draw.disc(x=x))
    cases, problems = read_raw("folder", tmp_path)
    assert not problems
    assert [(case.case_id, len(case.mask_paths)) for case in cases] == [
        ("folder/a", 2),
        ("folder/b_gt", 0),
    ]
    assert (read_pixels(cases[0]).mask_HW == draw.disc(x=30) | draw.disc(x=50)).all()


def test_an_image_with_two_masks_that_are_not_numbered_is_left_out(tmp_path, draw):
    draw.save(tmp_path / "images" / "a.png", draw.speckle(1))
    for name in ("a.png", "a_seg.png"):
        draw.save(tmp_path / "masks" / name, draw.disc())
    cases, (problem,) = read_raw("folder", tmp_path)
    assert not cases and problem.source_path == "images/a.png"
    assert "several masks: masks/a.png, masks/a_seg.png; keep one" in problem.reason


def test_folders_that_may_hold_the_masks_are_named(tmp_path, draw):
    draw.save(tmp_path / "images" / "a.png", draw.speckle(1))
    draw.save(tmp_path / "outlines" / "a.png", draw.disc())
    (tmp_path / "labels").mkdir()
    (tmp_path / "labels" / "a.txt").write_text("0 .5 .5 .1 .1")
    reasons = {p.source_path: p.reason for p in read_raw("folder", tmp_path)[1]}
    assert reasons["outlines"] == "did you mean masks/?"
    assert "holds no image" in reasons["labels"] and len(reasons) == 2
    draw.save(tmp_path / "gt" / "a.png", draw.disc())
    draw.save(tmp_path / "annotations" / "a.png", draw.disc())
    with pytest.raises(InputError, match="annotations/, gt/ may all hold the masks; call the rig"):
        read_raw("folder", tmp_path)
    draw.save(tmp_path / "masks" / "a.png", draw.disc())
    (case,), problems = read_raw("folder", tmp_path)
    assert case.mask_paths == (tmp_path / "masks" / "a.png",)
    reasons = {p.source_path: p.reason for p in problems}
    assert reasons["gt"] == reasons["annotations"] == "is not read: the masks are in masks/"


def test_images_that_lie_in_no_folder_of_images(tmp_path, draw):
    draw.save(tmp_path / "a.png", draw.speckle(1))
    with pytest.raises(InputError, match=r"found a.png; move the images into images/"):
        read_raw("folder", tmp_path)
