import os
from pathlib import Path

import pytest

from stdiff.datasets.bus_cot_terms import findings_of
from stdiff.datasets.harmonize import READERS, read_raw
from stdiff.datasets.pixels import read_grey, read_mask, read_pixels
from stdiff.lexicon import Findings

_DATA = Path(
    os.environ.get("STDIFF_DATA_ROOT", Path(__file__).parents[2].parent / "shared" / "data")
)
real_files = pytest.mark.skipif(
    not (_DATA / "BUSBRA").is_dir(), reason="real collections are not here"
)


@pytest.mark.parametrize("collection", ["busi", "bus_bra", "bus_cot"])
def test_own_folder_and_its_parent_give_the_same_cases(collection, request):
    root = request.getfixturevalue(collection)
    assert read_raw(collection, root) == read_raw(collection, root.parent)


def test_busi_ids_classes_and_no_birads(busi):
    cases, problems = read_raw("busi", busi)
    assert not problems
    assert [case.case_id for case in cases][:4] == [
        "busi/benign-0001",
        "busi/benign-0002",
        "busi/benign-0003",
        "busi/malignant-0001",
    ]
    assert {case.annotated for case in cases} == {("pathology",)}
    assert all(case.findings == Findings(pathology=case.findings.pathology) for case in cases)
    assert {case.findings.pathology for case in cases if case.lesion_free} == {"normal"}


def test_busi_joins_all_masks_of_an_image(busi, draw):
    second = draw.disc(x=10, y=50, r=5)
    draw.save(busi / "benign" / "benign (2)_mask_1.png", second)
    case = read_raw("busi", busi)[0][1]
    assert len(case.mask_paths) == 2
    assert (read_pixels(case).mask_HW == (draw.disc() | second)).all()


def test_bus_bra_patient_terms_and_box(bus_bra):
    cases, problems = read_raw("bus_bra", bus_bra)
    assert not problems
    left, right = cases[0], cases[1]
    assert left.case_id == "bus_bra/bus_0001-l"
    assert left.group_id == right.group_id == "bus_bra/patient-1"
    assert left.annotated == ("pathology", "birads", "histology")
    assert left.findings == Findings(pathology="benign", birads="3")
    assert read_pixels(left).flags == ()


def test_bus_bra_flags_what_the_csv_gets_wrong(bus_bra, draw):
    rows = [draw.bra_row(n, side) for n in (1, 2, 3) for side in "lr"]
    rows[0]["Height"] = "62"
    rows[1]["BBOX"] = "[1,1,20,20]"
    draw.write_bra_csv(bus_bra, rows)
    flags = [read_pixels(case).flags for case in read_raw("bus_bra", bus_bra)[0]]
    assert flags == [("csv_size_mismatch",), ("bbox_mismatch",), (), (), (), ()]


def test_bus_cot_crops_inherit_patient_and_origin_of_their_frame(bus_cot):
    cases, problems = read_raw("bus_cot", bus_cot)
    by_id = {case.case_id: case for case in cases}
    assert not problems and len(cases) == 7
    crop, frame = by_id["bus_cot/lesion-trainval_000001@0"], by_id["bus_cot/expert-000001"]
    assert crop.origin == frame.origin == "BUSBRA"
    assert crop.group_id == frame.group_id == "bus_cot/patient-BUSBRA@000177"
    assert crop.mask_paths == () and len(frame.mask_paths) == 1
    assert frame.image_path.name == "000001@raw.png"
    assert not by_id["bus_cot/lesion-trainval_000009@0"].origin_known


def test_bus_cot_terms(bus_cot):
    by_id = {case.case_id: case for case in read_raw("bus_cot", bus_cot)[0]}
    own = by_id["bus_cot/expert-000000"]
    assert own.findings == Findings(pathology="benign", birads="4A", echo_pattern="hypoechoic")
    assert own.histology == "fibroadenoma"
    assert own.annotated == ("pathology", "birads", "echo_pattern", "histology")
    crop = by_id["bus_cot/lesion-trainval_000000@0"].findings
    assert crop == Findings(pathology="malignant", birads="5", margin=("indistinct",))
    unknown = by_id["bus_cot/expert-000002"]
    assert unknown.flags == ("unknown_term:LesionEdge=Wobbly",)


def test_bus_cot_takes_the_frame_of_the_masks_size(bus_cot, draw):
    draw.save(bus_cot / "BUS-Expert" / "000000" / "000000@0.png", draw.disc(40, 50))
    case = next(c for c in read_raw("bus_cot", bus_cot)[0] if c.case_id.endswith("t-000000"))
    assert case.image_path.name == "000000@cropped.png"


def test_lesions_that_disagree_leave_the_term_open():
    reports = [
        {"EchoCharacteristics": "LowEcho", "BIRADS": "3"},
        {"EchoCharacteristics": "NoEcho", "BIRADS": "3"},
    ]
    findings, flags = findings_of({"0": {"pathology": "Benign"}}, reports)
    assert findings == Findings(pathology="benign", birads="3")
    assert flags == ()


def test_circumscribed_takes_a_regular_edge_and_a_clear_boundary():
    both = {"LesionEdge": "Regular", "LesionBoundary": "BoundaryClear"}
    assert findings_of(None, [both])[0].margin == ("circumscribed",)
    for key in both:
        assert findings_of(None, [{key: both[key]}])[0] == Findings()


@pytest.mark.parametrize("masks", ["masks", "masks/0"])
def test_folder_with_metadata(tmp_path, draw, masks):
    for key, stem in enumerate(("a", "b", "c")):
        draw.save(tmp_path / "images" / f"{stem}.png", draw.speckle(key))
    draw.save(tmp_path / masks / "a.png", (draw.disc() * 200).astype("uint8"))
    (tmp_path / "metadata.csv").write_text(
        "stem,patient_id,pathology,margin,pixel_spacing_mm\n"
        "a,7,malignant,angular & spiculated,0.1\nb,7,normal,,\n"
    )
    (a, b, c), problems = read_raw("folder", tmp_path)
    assert not problems
    assert a.findings == Findings(pathology="malignant", margin=("angular", "spiculated"))
    assert a.group_id == b.group_id != c.group_id
    assert (a.pixel_spacing_mm, a.annotated) == (0.1, ("pathology", "margin"))
    assert b.lesion_free and not c.lesion_free
    assert read_pixels(c).mask_HW is None
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


def test_colour_is_told_from_three_equal_channels(tmp_path, draw):
    grey = draw.speckle(1)
    rgb = grey[..., None].repeat(3, axis=2)
    assert read_grey(draw.save(tmp_path / "grey.png", rgb))[1] is False
    assert (read_grey(tmp_path / "grey.png")[0] == grey).all()
    rgb[0, 0, 0] ^= 128
    assert read_grey(draw.save(tmp_path / "colour.png", rgb))[1] is True


@pytest.mark.parametrize("mode", ["1", "L", "RGB", "RGBA", "P"])
def test_masks_of_every_mode_read_alike(tmp_path, draw, mode):
    from PIL import Image

    Image.fromarray(draw.disc()).convert("L").convert(mode).save(tmp_path / "m.png")
    assert (read_mask(tmp_path / "m.png") == draw.disc()).all()


def test_transparent_pixels_are_black(tmp_path, draw):
    rgba = draw.disc()[..., None].repeat(4, axis=2).astype("uint8") * 255
    rgba[..., :3] = 255
    assert (read_mask(draw.save(tmp_path / "m.png", rgba)) == draw.disc()).all()


def test_every_reader_is_registered():
    assert set(READERS) == {"busi", "bus_bra", "bus_cot", "folder"}


@real_files
@pytest.mark.parametrize(("collection", "count"), [("busi", 653), ("bus_bra", 1303)])
def test_real_collections_are_read_whole(collection, count):
    cases, problems = read_raw(collection, _DATA)
    assert (len(cases), problems) == (count, [])
