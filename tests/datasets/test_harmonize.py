import json
import shutil

import numpy as np
import pandas as pd
import pytest

from stdiff.datasets.geometry import FITS
from stdiff.datasets.harmonize import harmonize
from stdiff.datasets.rows import Harmonization
from stdiff.runtime.files import sha256_file
from stdiff.table.cases import images_of, read_cases, verify_table


def table(
    collection, raw, folder, fit="stretch", crop_sector=False, inpaint_marks=False, **options
):
    out, quarantine = folder / "cases.parquet", folder / "quarantine.parquet"
    how = Harmonization(48, fit, crop_sector, inpaint_marks)
    harmonize(collection, raw, out, quarantine, how=how, **options)
    assert verify_table(out) == []
    return read_cases(out)


@pytest.mark.parametrize("fit", FITS)
@pytest.mark.parametrize("collection", ["busi", "bus_bra", "bus_cot"])
def test_table_is_sound_and_sorted(collection, fit, request, tmp_path):
    cases = table(collection, request.getfixturevalue(collection), tmp_path, fit=fit)
    assert list(cases["case_id"]) == sorted(cases["case_id"])
    assert images_of(cases["image"]).shape == (len(cases), 48, 48)


def test_what_a_row_says(busi, tmp_path):
    cases = table("busi", busi, tmp_path).set_index("case_id")
    benign, normal = cases.loc["busi/benign-0001"], cases.loc["busi/normal-0001"]
    assert benign["source_path"] == "benign/benign (1).png"
    assert benign["source_sha256"] == sha256_file(busi / benign["source_path"])
    assert list(benign["annotated"]) == ["pathology"]
    assert benign["shape"] == "round" and benign["lesion_count"] == 1
    assert benign["caption"].startswith("benign: round shape")
    assert cases["birads"].isna().all()
    assert normal["lesion_count"] == 0 and not images_of([normal["mask"]]).any()
    assert normal["shape"] is None or normal["shape"] != normal["shape"]


def test_unlabelled_means_no_mask(bus_cot, tmp_path):
    cases = table("bus_cot", bus_cot, tmp_path).set_index("case_id")
    crop = cases.loc["bus_cot/lesion-trainval_000000@0"]
    assert crop["mask"] is None and np.isnan(crop["lesion_count"])


def test_annotated_terms_are_kept_and_derived_ones_not_marked(bus_cot, tmp_path):
    frame = table("bus_cot", bus_cot, tmp_path).set_index("case_id").loc["bus_cot/expert-000000"]
    # The drawing shows no contrast; a person said hypoechoic.
    assert frame["echo_pattern"] == "hypoechoic" and "echo_pattern" in frame["annotated"]
    assert frame["shape"] == "round" and "shape" not in frame["annotated"]


def test_drop_sources_takes_out_what_stands_elsewhere(bus_cot, tmp_path):
    cases = table("bus_cot", bus_cot, tmp_path, drop_sources=("busi", "bus_bra"))
    reasons = pd.read_parquet(tmp_path / "quarantine.parquet").set_index("source_path")["reason"]
    assert [i for i in cases["case_id"] if "000001" in i or "000009" in i] == []
    assert len(cases) == 4
    assert reasons["BUS-Expert/000001/000001@raw.png"] == "already in bus_bra"
    assert reasons["BUS-Lesion/trainval/000001@0.png"] == "already in bus_bra"
    assert reasons["BUS-Lesion/trainval/000009@0.png"].startswith("origin unknown")


def test_neither_file_order_nor_processes_matter(busi, tmp_path):
    copy = tmp_path / "copy"
    for path in sorted(busi.rglob("*.png"), reverse=True):
        target = copy / path.relative_to(busi)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target)
    tables = []
    for name, raw, processes in (("a", busi, 1), ("b", copy, 1), ("c", busi, 2)):
        (tmp_path / name).mkdir()
        table("busi", raw, tmp_path / name, processes=processes)
        tables.append((tmp_path / name / "cases.parquet").read_bytes())
    assert tables[0] == tables[1] == tables[2]


def test_limit_keeps_every_class(busi, tmp_path):
    cases = table("busi", busi, tmp_path, limit=3)
    assert list(cases["pathology"]) == ["benign", "malignant", "normal"]


def test_a_crop_that_cuts_the_lesion_is_flagged(busi, tmp_path, draw):
    draw.save(busi / "benign" / "benign (1)_mask.png", draw.disc(x=10, r=12))
    cases = table("busi", busi, tmp_path, fit="crop").set_index("case_id")
    assert list(cases.loc["busi/benign-0001", "flags"]) == ["lesion_cut_by_crop"]
    assert list(cases.loc["busi/benign-0002", "flags"]) == []


def framed_on_a_screen(draw):
    """Speckle inside a black surround, with a plus on it."""
    screen = np.zeros((120, 150), np.uint8)
    screen[20:110, 30:140] = draw.speckle(4, 90, 110) // 2 + 20
    screen[60:71, 90] = screen[65, 85:96] = 255
    return screen


def test_the_sector_can_be_cut_out_and_the_transform_leads_back(tmp_path, draw):
    draw.save(tmp_path / "images" / "a.png", framed_on_a_screen(draw))
    whole = table("folder", tmp_path, tmp_path)
    assert "black_border" in whole["flags"][0] and "sector_cropped" not in whole["flags"][0]
    cut = table("folder", tmp_path, tmp_path, crop_sector=True)
    assert "sector_cropped" in cut["flags"][0]
    cell = cut["transform"][0]
    left, top = (-cell[f"offset_{axis}_px"] / cell[f"scale_{axis}"] for axis in "xy")
    assert (left, top) == pytest.approx((30, 20), abs=1)
    assert (cell["native_height_px"], cell["native_width_px"]) == (120, 150)
    assert images_of(cut["image"])[0][:, 0].mean() > 30 > images_of(whole["image"])[0][:, 0].mean()


def test_marks_can_be_painted_over(tmp_path, draw):
    plus = np.full((120, 150), 60, np.uint8)
    plus[60:71, 90] = plus[65, 85:96] = 255
    draw.save(tmp_path / "images" / "a.png", plus)
    kept = table("folder", tmp_path, tmp_path)
    painted = table("folder", tmp_path, tmp_path, inpaint_marks=True)
    assert "callipers" in kept["flags"][0] and "marks_inpainted" not in kept["flags"][0]
    assert "marks_inpainted" in painted["flags"][0]
    assert images_of(kept["image"]).max() > 150 > 70 > images_of(painted["image"]).max()
    assert kept["fingerprint"][0] == painted["fingerprint"][0]


def test_duplicates_of_a_collection_share_a_group_and_conflicts_are_flagged(busi, tmp_path, draw):
    from skimage.data import camera

    photograph = camera()[:300, :400]
    for name in ("benign (1)", "malignant (2)"):
        draw.save(busi / name.split()[0] / f"{name}.png", photograph)
        draw.save(busi / name.split()[0] / f"{name}_mask.png", draw.disc(300, 400))
    cases = table("busi", busi, tmp_path).set_index("case_id")
    one, other = cases.loc["busi/benign-0001"], cases.loc["busi/malignant-0002"]
    assert one["group_id"] == other["group_id"] == "busi/benign-0001"
    for row in (one, other):
        assert {"duplicate", "label_conflict"} <= set(row["flags"])
    alone = cases.drop(["busi/benign-0001", "busi/malignant-0002"])
    assert list(alone["group_id"]) == list(alone.index)


def test_folder_mask_of_the_same_aspect_ratio_is_brought_to_size(tmp_path, draw):
    draw.save(tmp_path / "images" / "a.png", draw.speckle(1))
    draw.save(tmp_path / "masks" / "a.png", draw.disc(120, 160, 80, 50, 20))
    cases = table("folder", tmp_path, tmp_path, fit="pad")
    assert list(cases["flags"][0]) == ["mask_resized"]
    share = (images_of(cases["mask"]) > 0).mean() / (36 / 48)
    assert share == pytest.approx(draw.disc().mean(), rel=0.1)


def test_pixel_spacing_is_that_of_the_stored_image(tmp_path, draw):
    draw.save(tmp_path / "images" / "a.png", draw.speckle(1, 60, 96))
    (tmp_path / "metadata.csv").write_text("stem,pixel_spacing_mm\na,0.1\n")
    axes = ["pixel_spacing_mm", "pixel_spacing_y_mm"]
    # 60 x 96 px become 30 x 48, or 48 x 48.
    padded = table("folder", tmp_path, tmp_path, fit="pad")
    assert list(padded[axes].iloc[0]) == pytest.approx([0.2, 0.2])
    stretched = table("folder", tmp_path, tmp_path, fit="stretch")
    assert list(stretched[axes].iloc[0]) == pytest.approx([0.2, 0.125])
    (tmp_path / "metadata.csv").unlink()
    assert table("folder", tmp_path, tmp_path)[axes].isna().all(axis=None)


@pytest.mark.parametrize(
    ("origin", "source"),
    [
        ("BUSI", "busi"),
        ("Dataset_BUSI", "busi"),
        ("BUS-BRA dataset", "bus_bra"),
        ("bus bra", "bus_bra"),
        ("InHouse", None),
    ],
)
def test_other_collections_are_known_by_any_spelling(bus_cot, tmp_path, origin, source):
    file = bus_cot / "DatasetFiles" / "BUS-Expert_dataset.json"
    entries = json.loads(file.read_text(encoding="utf-8"))
    entries["000001"]["dataset"] = origin
    file.write_text(json.dumps(entries), encoding="utf-8")
    table("bus_cot", bus_cot, tmp_path, drop_sources=("busi", "bus_bra"))
    reasons = pd.read_parquet(tmp_path / "quarantine.parquet").set_index("source_path")["reason"]
    name = "BUS-Expert/000001/000001@raw.png"
    assert reasons.get(name) == (f"already in {source}" if source else None)
