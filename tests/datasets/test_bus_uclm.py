import numpy as np
import pytest

from stdiff.birads.lexicon import Findings
from stdiff.datasets.pixels import read_pixels
from stdiff.datasets.readers import read_raw
from stdiff.runtime.files import InputError


def test_what_a_case_says(bus_uclm, draw):
    cases, problems = read_raw("bus_uclm", bus_uclm)
    assert not problems
    normal, benign, malignant, shared = cases
    assert [case.case_id for case in cases] == [
        *("bus_uclm/ALWI_000", "bus_uclm/ALWI_001", "bus_uclm/CHCO_000", "bus_uclm/CHVI_005"),
    ]
    assert benign.findings == Findings(pathology="benign") and benign.annotated == ("pathology",)
    assert normal.lesion_free and not read_pixels(normal).mask_HW.any()
    for case in (benign, malignant):
        assert (read_pixels(case).mask_HW == draw.disc()).all()
    assert read_pixels(benign).flags == ()
    assert read_pixels(malignant).flags == ("doppler",)
    assert read_pixels(shared).flags == ("combined", "doppler", "marks")


def test_patients_that_share_frames_are_one_group(bus_uclm):
    normal, benign, chco, chvi = read_raw("bus_uclm", bus_uclm)[0]
    assert chco.group_id == chvi.group_id == "bus_uclm/patient-CHCO+CHVI"
    assert normal.group_id == benign.group_id == "bus_uclm/patient-ALWI"


@pytest.mark.parametrize("depth", ["itself", "any name", "a level down", "two levels down"])
def test_the_folder_may_be_called_anything(bus_uclm, tmp_path, depth):
    names = [case.case_id for case in read_raw("bus_uclm", bus_uclm)[0]]
    (tmp_path / "raw" / "__MACOSX" / "images").mkdir(parents=True)
    given = bus_uclm
    if depth != "itself":
        given = bus_uclm.rename(bus_uclm.parent / "Breast ultrasound lesion segmentation dataset")
    if depth == "a level down":
        given = given.parent
    elif depth == "two levels down":
        given = given.parent.rename(tmp_path / "wrapped").parent / "wrapped"
        (tmp_path / "top").mkdir()
        given = given.rename(tmp_path / "top" / "wrapped").parent
    cases, problems = read_raw("bus_uclm", given)
    assert [case.case_id for case in cases] == names and not problems


def test_two_folders_that_fit(bus_uclm, draw):
    (first, second) = (bus_uclm.rename(bus_uclm.parent / "a"), bus_uclm.parent / "b")
    draw.write_info(second, [])
    (second / "images").mkdir()
    (second / "masks").mkdir()
    with pytest.raises(InputError, match="several folders look like BUS-UCLM/: a, b; give one"):
        read_raw("bus_uclm", first.parent)


@pytest.mark.parametrize("cell", ["ALWI_001", "ALWI_001.png"])
def test_names_with_and_without_suffix(bus_uclm, draw, cell):
    draw.write_info(bus_uclm, [draw.uclm_row("ALWI_001", Image=cell)])
    cases, problems = read_raw("bus_uclm", bus_uclm)
    assert [case.case_id for case in cases] == ["bus_uclm/ALWI_001"]
    assert {problem.reason for problem in problems} == {"not named in INFO.csv"}


def test_unknown_values_and_a_false_size_are_flags(bus_uclm, draw):
    odd = draw.uclm_row("ALWI_001", Doppler="perhaps", Marks="", Resolution="856x606")
    strange = draw.uclm_row("CHCO_000", "Cyst", Resolution="large")
    draw.write_info(bus_uclm, [odd, strange])
    cases, _ = read_raw("bus_uclm", bus_uclm)
    assert read_pixels(cases[0]).flags == (
        "csv_size_mismatch",
        "unknown_term:Doppler=perhaps",
        "unknown_term:Marks=",
    )
    assert cases[1].findings == Findings() and cases[1].annotated == ()
    assert read_pixels(cases[1]).flags == (
        "unknown_term:Label=Cyst",
        "unreadable_metadata:Resolution=large",
    )


def test_colours_are_held_against_the_table_and_the_label(bus_uclm, draw):
    masks = bus_uclm / "masks"
    draw.save(masks / "ALWI_000.png", draw.coloured_disc((0, 255, 0)))
    draw.save(masks / "ALWI_001.png", draw.coloured_disc((0, 254, 0)))
    draw.save(masks / "CHCO_000.png", draw.coloured_disc((0, 255, 0)))
    draw.save(masks / "CHVI_005.png", draw.coloured_disc((0, 0, 0)))
    kept, reasons = draw.usable("bus_uclm", bus_uclm)
    assert not kept
    assert "masks/ALWI_000.png: colour (0, 255, 0) marks a benign" in reasons["images/ALWI_000.png"]
    assert reasons["images/ALWI_000.png"].endswith("labelled normal")
    assert "masks/ALWI_001.png: colour (0, 254, 0) in the mask" in reasons["images/ALWI_001.png"]
    assert "expected (0, 0, 0) background, (0, 255, 0) benign" in reasons["images/ALWI_001.png"]
    assert (
        "marks a benign lesion, but the image is labelled malignant"
        in (reasons["images/CHCO_000.png"])
    )
    assert "the mask is empty" in reasons["images/CHVI_005.png"]


def test_a_lesion_in_each_colour_contradicts_any_label(bus_uclm, draw):
    both = draw.coloured_disc((0, 255, 0))
    both[:5, :5] = (255, 0, 0)
    draw.save(bus_uclm / "masks" / "ALWI_001.png", both)
    _, reasons = draw.usable("bus_uclm", bus_uclm)
    assert "colour (255, 0, 0) marks a malignant lesion" in reasons["images/ALWI_001.png"]


def test_images_smaller_than_their_masks_are_quarantined(bus_uclm, draw):
    rows = [draw.uclm_row(f"HESN_{n:03d}", label) for n, label in enumerate(("Normal", "Benign"))]
    draw.write_info(bus_uclm, rows)
    for row in rows:
        draw.save(bus_uclm / "images" / row["Image"], draw.opaque(draw.speckle(1, 50, 70)))
        colour = {"Normal": (0, 0, 0), "Benign": (0, 255, 0)}[row["Label"]]
        draw.save(bus_uclm / "masks" / row["Image"], draw.coloured_disc(colour))
    kept, reasons = draw.usable("bus_uclm", bus_uclm)
    assert not kept
    for row in rows:
        expected = f"masks/{row['Image']}: mask of 80 x 60 px for an image of 70 x 50 px; how"
        assert reasons[f"images/{row['Image']}"].startswith(expected)


def test_rows_and_files_that_do_not_meet(bus_uclm, draw):
    (bus_uclm / "images" / "ALWI_000.png").unlink()
    (bus_uclm / "masks" / "ALWI_001.png").unlink()
    draw.save(bus_uclm / "images" / "ZZZZ_000.png", draw.speckle(3))
    draw.save(bus_uclm / "images" / "odd.png", draw.speckle(4))
    rows = [draw.uclm_row(s) for s in ("ALWI_000", "ALWI_001", "odd")]
    rows.append(draw.uclm_row("CHCO_000", "Malignant", Combined="No;No"))
    draw.write_info(bus_uclm, rows)
    kept, reasons = draw.usable("bus_uclm", bus_uclm)
    assert not kept
    expected = {
        "images/ALWI_000.png": "the image is missing",
        "images/ALWI_001.png": "its mask is missing",
        "images/odd.png": "Image 'odd.png'; expected e.g. ALWI_000",
        "images/CHCO_000.png": "more cells than columns (last 'No')",
        "images/ZZZZ_000.png": "not named in INFO.csv",
        "images/CHVI_005.png": "not named in INFO.csv",
        "masks/CHVI_005.png": "not named in INFO.csv",
    }
    assert set(reasons) == set(expected)
    assert all(part in reasons[path] for path, part in expected.items())


def test_the_table_itself(bus_uclm, draw):
    rows = [draw.uclm_row("ALWI_001")] * 2
    draw.write_info(bus_uclm, rows)
    with pytest.raises(InputError, match=r"column Image: must be unique.*ALWI_001.png \(2 times\)"):
        read_raw("bus_uclm", bus_uclm)
    draw.write_info(bus_uclm, rows[:1], ["Image", "Resolution", "Label"])
    with pytest.raises(InputError, match=r"column\(s\) Doppler, Marks, Combined missing"):
        read_raw("bus_uclm", bus_uclm)
    text = (bus_uclm / "INFO.csv").read_text(encoding="utf-8-sig") + "ÄLWI_002;80x60;Benign\n"
    (bus_uclm / "INFO.csv").write_bytes(text.encode("cp1252"))
    with pytest.raises(InputError, match="not a UTF-8 CSV file .*; save it as 'CSV UTF-8'"):
        read_raw("bus_uclm", bus_uclm)


def test_a_mask_of_one_colour_channel_is_seen(bus_uclm, draw):
    """Red is grey level 76: below half by brightness as the eye has it, and still lesion."""
    case = read_raw("bus_uclm", bus_uclm)[0][2]
    grey = np.asarray(draw.coloured_disc((255, 0, 0)), dtype=float) @ (0.299, 0.587, 0.114)
    assert grey.max() < 127
    assert read_pixels(case).mask_HW.sum() == draw.disc().sum()
