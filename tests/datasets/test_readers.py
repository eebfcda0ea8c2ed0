import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from real_data import DATA, real_files

from stdiff.birads.lexicon import Findings
from stdiff.datasets.bus_cot_terms import findings_of
from stdiff.datasets.pixels import read_mask, read_picture, read_pixels
from stdiff.datasets.readers import READERS, read_raw
from stdiff.runtime.files import InputError


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


def test_bus_cot_as_newer_sources_describe_it(bus_cot, draw):
    files = bus_cot / "DatasetFiles"
    expert = json.loads((files / "BUS-Expert_dataset.json").read_text())
    # Masks named otherwise; values in other case; a modality.
    frame = bus_cot / "BUS-Expert" / "000000"
    (frame / "000000@0.png").rename(frame / "000000@mask_1.png")
    draw.save(frame / "000000@mask2.png", draw.disc(x=60))
    expert["000000"]["us_report"] = {
        "0": {"BIRADS": "4a", "EchoCharacteristics": "lowecho"}
        | {"LesionEdge": "REGULAR", "LesionBoundary": "boundaryClear"}
    }
    for key, modality in (("000000", "B-mode"), ("000001", "Color Doppler"), ("000002", "X-ray")):
        expert[key]["imagemodality"] = modality
    (files / "BUS-Expert_dataset.json").write_text(json.dumps(expert))
    # Crops that only the questions for language models name.
    for split, name in (
        ("test", "000001@1.png"),
        ("test", "000007@0.png"),
        ("trainval", "8@0.png"),
    ):
        draw.save(bus_cot / "BUS-Lesion" / split / name, draw.speckle(len(name) + len(split)))
    questions = [
        {"image": "BUS-Lesion/test/000001@1.png", "conversations": [{"value": "000404@0.png"}]},
        {"image": ["test_000007@0.png"]},
    ]
    (files / "vlm_reasoning_test.json").write_text(json.dumps(questions))
    (files / "vlm_baseline_trainval.json").write_text(json.dumps({"000009@0.png": "named twice"}))
    cases, problems = read_raw("bus_cot", bus_cot)
    by_id = {case.case_id.partition("/")[2]: case for case in cases}
    assert [p.source_path for p in problems] == ["BUS-Lesion/trainval/8@0.png"]
    own = by_id["expert-000000"]
    assert len(own.mask_paths) == 2 and own.flags == ()
    assert own.findings == Findings(
        pathology="benign", birads="4A", echo_pattern="hypoechoic", margin=("circumscribed",)
    )
    assert by_id["expert-000001"].flags == ("doppler",)
    assert "unknown_term:imagemodality=X-ray" in by_id["expert-000002"].flags
    crop = by_id["lesion-test_000001@1"]
    assert crop.flags == ("named_in_vlm_only", "doppler") and crop.lesion_crop
    assert crop.patient_id == "BUSBRA@000177" and crop.origin == "BUSBRA"
    assert not by_id["lesion-test_000007@0"].origin_known
    assert sum("named_in_vlm_only" in case.flags for case in cases) == 2


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


@pytest.mark.parametrize(
    "sentence",
    [
        "This lesion is not parallel, has indistinct margins and irregular shape, This lesion has "
        "hypoechoicwith absence of calcifications.",
        "this lesion is non-parallel to the skin. It has an irregular shape.",
        "This lesion is\nnot parallel",
    ],
)
def test_bus_cot_reads_orientation_and_shape_where_a_sentence_says_them(sentence):
    findings, flags = findings_of(None, [{"reasoning_response": sentence}])
    shape = "irregular" if "irregular" in sentence else None
    assert findings == Findings(orientation="not parallel", shape=shape) and flags == ()


@pytest.mark.parametrize(
    "sentence",
    [
        "This lesion is partially parallel, has smooth margins and lobular shape.",
        "This lesion is parallel in part. It does not have oval shape, has no round shape.",
        "This lesion is parallel, has oval shape. This lesion is not parallel, has round shape.",
        "The ducts run parallel to the skin; margins are of irregular shape.",
        "病灶与皮肤平行，形态规则",
        "",
        None,
        {"text": "This lesion is parallel"},
    ],
)
def test_bus_cot_leaves_an_ambiguous_sentence_alone(sentence):
    assert findings_of(None, [{"reasoning_response": sentence}]) == (Findings(), ())


def test_bus_cot_values_of_every_kind():
    report = {
        "BIRADS": "6",
        "LesionEdge": None,
        "LesionBoundary": "边界不清",
        "EchoCharacteristics": "",
        "LesionCalcificationFeatures": "SuspectedCalcification",
        "BloodFlowFeatures": "丰富",
        "ElastographyFeatures": "2分",
    }
    findings, flags = findings_of({"pathology": "Malignant"}, [report])
    assert findings == Findings(pathology="malignant", birads="6")
    assert flags == ("unknown_term:LesionBoundary=边界不清",)
    assert findings_of(None, [{"BIRADS": 3}])[0].birads == "3"
    assert findings_of(None, [{"BIRADS": "4a "}])[0].birads == "4A"
    long = findings_of(None, [{"LesionEdge": "word " * 40}])[1][0]
    assert len(long) < 90 and long.endswith("…")


def test_bus_cot_passes_over_what_holds_nothing_new(bus_cot):
    (bus_cot / "DatasetFiles" / "vlm_reasoning_trainval.json").write_text("[]")
    (bus_cot / "DatasetFiles" / "extra.json").write_text("[]")
    (bus_cot / "BUS-Expert" / "000000" / "000000_VISBOXMASK.png").write_bytes(b"")
    (bus_cot / "BUS-Expert" / "000000" / "000000@outline.png").write_bytes(b"")
    (bus_cot / "BUS-Expert" / "notes.txt").write_text("hello")
    problems = read_raw("bus_cot", bus_cot)[1]
    assert {problem.source_path for problem in problems} == {
        "DatasetFiles/extra.json",
        "BUS-Expert/000000/000000@outline.png",
        "BUS-Expert/notes.txt",
    }


def test_bus_cot_says_which_images_are_crops(bus_cot):
    crops = {case.case_id: case.lesion_crop for case in read_raw("bus_cot", bus_cot)[0]}
    assert all(crop == ("lesion-" in case_id) for case_id, crop in crops.items())


def test_bus_bra_odd_metadata_cost_no_image(bus_bra, draw):
    rows = [draw.bra_row(n, side) for n in (1, 2, 3) for side in "lr"]
    rows[0] |= {"BIRADS": "4D", "Pathology": "unclear", "Histology": "", "Device": " Toshiba "}
    rows[1] |= {"BBOX": "everywhere", "Width": "wide"}
    rows[2] |= {"Side": "right"}
    draw.write_bra_csv(bus_bra, rows)
    cases, problems = read_raw("bus_bra", bus_bra)
    assert not problems
    assert read_pixels(cases[0]).flags == (
        "unknown_term:BIRADS=4D",
        "unknown_term:Pathology=unclear",
    )
    assert (cases[0].findings, cases[0].annotated, cases[0].histology) == (Findings(), (), None)
    assert cases[0].device == "Toshiba" and cases[1].device == "GE"
    assert read_pixels(cases[1]).flags == (
        "unreadable_metadata:BBOX=everywhere",
        "unreadable_metadata:Width=wide",
    )
    assert read_pixels(cases[2]).flags == ("side_mismatch",)
    assert read_pixels(cases[3]).flags == ()


def test_colour_is_distinguished_from_three_equal_channels(tmp_path, draw):
    grey = draw.speckle(1)
    rgb = grey[..., None].repeat(3, axis=2)
    found = read_picture(draw.save(tmp_path / "grey.png", rgb))
    assert found.rgb_HWC is None and (found.grey_HW == grey).all()
    rgb[0, 0, 0] ^= 128
    assert (read_picture(draw.save(tmp_path / "colour.png", rgb)).rgb_HWC == rgb).all()


@pytest.mark.parametrize("mode", ["1", "L", "LA", "RGB", "RGBA", "P"])
def test_masks_of_every_mode_read_alike(tmp_path, draw, mode):
    Image.fromarray(draw.disc()).convert("L").convert(mode).save(tmp_path / "m.png")
    assert (read_mask(tmp_path / "m.png") == draw.disc()).all()


@pytest.mark.parametrize("colour", [(255, 0, 0), (0, 255, 0), (0, 0, 255), (128, 0, 0)])
def test_a_mask_pixel_is_lesion_by_its_brightest_channel(tmp_path, draw, colour):
    rgb = draw.coloured_disc(colour)
    rgb[0, :2] = [[40, 40, 40], [90, 90, 90]]  # no mask of two levels
    assert (read_mask(draw.save(tmp_path / "m.png", rgb)) == draw.disc()).all()


def test_transparent_pixels_are_black(tmp_path, draw):
    rgba = draw.disc()[..., None].repeat(4, axis=2).astype("uint8") * 255
    rgba[..., :3] = 255
    path = draw.save(tmp_path / "m.png", rgba)
    assert (read_mask(path) == draw.disc()).all()
    assert read_picture(path).flags == ("transparent_pixels",)
    Image.fromarray(draw.speckle(1)).save(tmp_path / "t.png", transparency=100)
    found = read_picture(tmp_path / "t.png")
    assert found.flags == ("transparent_pixels",)
    assert (found.grey_HW == np.where(draw.speckle(1) == 100, 0, draw.speckle(1))).all()


@pytest.mark.parametrize("level", [1, 38, 100, 255])
def test_a_mask_of_two_levels_is_one_at_any_level(tmp_path, draw, level):
    path = draw.save(tmp_path / "m.png", (draw.disc() * level).astype(np.uint8))
    assert (read_mask(path) == draw.disc()).all()
    deep = draw.save(tmp_path / "deep.png", (draw.disc() * 257 * level).astype(np.uint16))
    assert (read_mask(deep) == draw.disc()).all()


@pytest.mark.parametrize(("depth", "top"), [(np.uint8, 126), (np.uint16, 65535)])
def test_a_mask_of_levels_that_cannot_be_halved_is_refused(tmp_path, depth, top):
    path = tmp_path / "m.png"
    Image.fromarray(np.linspace(0, top, 4800).reshape(60, 80).astype(depth)).save(path)
    with pytest.raises(InputError, match=f"more than two levels up to {top}"):
        read_mask(path)


def in_another_order(source: Path, target: Path, seed: int) -> Path:
    """A copy whose files were made in another order, with the CSV's rows in another order too."""
    paths = sorted(path for path in source.rglob("*") if path.is_file())
    for index in np.random.default_rng(seed).permutation(len(paths)):
        copy = target / paths[index].relative_to(source)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(paths[index], copy)
        if copy.suffix == ".csv":
            header, *lines = copy.read_text(encoding="utf-8").splitlines()
            copy.write_text("\n".join([header, *lines[::-1]]), encoding="utf-8")
    return target


@pytest.mark.parametrize("collection", ["busi", "bus_bra", "bus_cot", "breast", "bus_uclm"])
def test_file_and_row_order_do_not_matter(collection, request, tmp_path, draw):
    root = request.getfixturevalue(collection)
    draw.save(next(path.parent for path in sorted(root.rglob("*.png"))) / "stray.png", draw.disc())
    readings = []
    for seed in range(3):
        copy = in_another_order(root, tmp_path / str(seed) / root.name, seed)
        cases, problems = read_raw(collection, copy)
        readings.append(
            (
                [replace(case, root=Path(), image_path=Path(), mask_paths=()) for case in cases],
                [(case.source_path, [path.name for path in case.mask_paths]) for case in cases],
                sorted((problem.source_path, problem.reason) for problem in problems),
            )
        )
    assert readings[0] == readings[1] == readings[2]
    assert len(readings[0][2]) == 1


def test_every_reader_is_registered():
    assert set(READERS) == {"breast", "busi", "bus_bra", "bus_cot", "bus_uclm", "folder"}


@real_files
@pytest.mark.parametrize(("collection", "count"), [("busi", 653), ("bus_bra", 1303)])
def test_real_collections_are_read_whole(collection, count):
    cases, problems = read_raw(collection, DATA)
    assert (len(cases), problems) == (count, [])


def test_busi_without_normal_images_is_read_with_a_warning(busi, capsys):
    shutil.rmtree(busi / "normal")
    cases, problems = read_raw("busi", busi)
    assert len(cases) == 6 and not problems
    read_raw("busi", busi)
    said = capsys.readouterr().err
    assert said.count(f"stdiff: warning: {busi}: no folder normal/") == 1
    shutil.rmtree(busi / "malignant")
    with pytest.raises(InputError, match="malignant missing"):
        read_raw("busi", busi)


def test_a_loop_of_links_is_no_second_copy(breast, busi):
    for raw in (breast.parent,):
        (raw / "again").symlink_to(raw)
        (raw / "busi2").symlink_to(busi)
        assert len(read_raw("breast", raw)[0]) == 4
        assert len(read_raw("busi", raw)[0]) == 9
