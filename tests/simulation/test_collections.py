"""The simulated raw folders: layouts and quirks as those of the real collections."""

import csv
import json
from collections import Counter, defaultdict

import numpy as np
import pytest
from PIL import Image

from stdiff.birads.lexicon import VOCABULARY
from stdiff.runtime.files import InputError, sha256_file, sha256_folder
from stdiff.simulation import collections as phantom_collections
from stdiff.simulation.collections import make_phantom

SIZE_PX = 80
BUSI = "Dataset_BUSI_with_GT"


@pytest.fixture(scope="module")
def phantom(tmp_path_factory):
    out = tmp_path_factory.mktemp("phantom")
    make_phantom(out, cases=40, seed=7, size_px=SIZE_PX)
    return out


def rows_of(path):
    with path.open(newline="") as handle:
        return list(csv.DictReader(handle))


def pixels(path):
    with Image.open(path) as image:
        return np.asarray(image.convert("L"))


def mode(path):
    with Image.open(path) as image:
        return image.mode


def busi_images(root):
    return sorted(p for p in (root / BUSI).rglob("*.png") if "_mask" not in p.name)


def test_equal_seeds_give_equal_folders(tmp_path):
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        make_phantom(tmp_path / name, cases=6, seed=seed, size_px=SIZE_PX)
    first, again, other = (sha256_folder(tmp_path / name) for name in "abc")
    assert first == again
    assert first != other


def test_a_larger_phantom_begins_with_the_smaller(phantom, tmp_path):
    make_phantom(tmp_path, cases=12, seed=7, size_px=SIZE_PX)
    for path in [*(tmp_path / BUSI).rglob("*.png"), *(tmp_path / "BUSBRA").rglob("*-[lr].png")]:
        assert sha256_file(path) == sha256_file(phantom / path.relative_to(tmp_path)), path


def test_counts(phantom):
    assert len(busi_images(phantom)) == 40
    assert len(list((phantom / "BUSBRA/Images").iterdir())) == 40
    assert len(list((phantom / "BUSCoT/BUS-Expert").iterdir())) == 13
    assert sorted(p.name for p in phantom.iterdir()) == [
        "BUSBRA",
        "BUSCoT",
        BUSI,
        "phantom_truth.csv",
    ]


def test_sizes_vary_around_the_one_asked_for(phantom):
    heights, widths = zip(*(pixels(p).shape for p in busi_images(phantom)), strict=True)
    assert 0.8 * SIZE_PX - 1 <= min(heights) < max(heights) <= 1.1 * SIZE_PX + 1
    assert 0.9 * SIZE_PX - 1 <= min(widths) < max(widths) <= 1.2 * SIZE_PX + 1


def test_busi_masks(phantom):
    modes, counts = Counter(), Counter()
    for image in busi_images(phantom):
        masks = sorted(image.parent.glob(f"{image.stem}_mask*.png"))
        counts[len(masks)] += 1
        for mask in masks:
            grey = pixels(mask)
            modes[mode(mask)] += 1
            assert grey.shape == pixels(image).shape
            assert np.isin(grey, (0, 255)).all()
            assert grey.any() == (image.parent.name != "normal")
            if image.parent.name == "normal":
                assert mode(mask) == "RGB"
    assert counts[2] >= 1
    assert counts[3] >= 1
    assert set(modes) == {"1", "RGB", "RGBA"}
    assert (phantom / BUSI / "benign/benign (4)_mask_1.png").exists()


def test_busi_overlays(phantom):
    truth = {r["path"]: r for r in rows_of(phantom / "phantom_truth.csv")}
    marks = Counter()
    for path in busi_images(phantom):
        with Image.open(path) as image:
            assert image.mode == "RGB"
            colour = np.ptp(np.asarray(image).astype(int), axis=2).any()
        row = truth[path.relative_to(phantom).as_posix()]
        assert colour == ("colour" in row["marks"])
        marks.update(row["marks"].split(";"))
    assert min(marks["callipers"], marks["text"], marks["colour"]) >= 1
    assert marks["colour"] < 8


def test_busi_near_duplicates_and_label_conflict(phantom):
    folder = phantom / BUSI
    truth = {r["file_id"]: r for r in rows_of(phantom / "phantom_truth.csv")}
    first, again = (pixels(folder / f"benign/benign ({n}).png") for n in (7, 8))
    assert truth["benign (8)"]["copy_of"] == "benign (7)"
    assert 0 < np.mean(first != again) < 0.1
    assert np.corrcoef(first.ravel(), again.ravel())[0, 1] > 0.8
    assert truth["malignant (5)"]["copy_of"] == "benign (10)"
    for suffix in ("", "_mask"):
        assert sha256_file(folder / f"malignant/malignant (5){suffix}.png") == sha256_file(
            folder / f"benign/benign (10){suffix}.png"
        )


def test_bus_bra_table(phantom):
    root = phantom / "BUSBRA"
    lines = (root / "bus_data.csv").read_text().splitlines()
    assert lines[0] == "ID,Case,Histology,Pathology,BIRADS,Device,Width,Height,Side,BBOX"
    assert lines[1].endswith(']"')
    wrong_size, wrong_box = [], []
    for row in rows_of(root / "bus_data.csv"):
        image, mask = (
            root / "Images" / f"{row['ID']}.png",
            root / "Masks" / f"{row['ID'].replace('bus', 'mask')}.png",
        )
        assert (mode(image), mode(mask)) == ("L", "1")
        inside = pixels(mask) > 0
        assert inside.shape == pixels(image).shape
        if (int(row["Height"]), int(row["Width"])) != inside.shape:
            wrong_size.append(row["ID"])
        z, x = np.nonzero(inside)
        box = [x.min() + 1, z.min() + 1, np.ptp(x), np.ptp(z)]
        if json.loads(row["BBOX"]) != box:
            wrong_box.append(row["ID"])
        assert row["BIRADS"] in ("2", "3", "4", "5")
        assert row["Side"][0] == row["ID"][-1]
        assert row["Histology"]
    assert wrong_size == ["bus_0009-l"]
    assert wrong_box == ["bus_0006-l"]


def test_bus_bra_patients_and_folds(phantom):
    root = phantom / "BUSBRA"
    data = rows_of(root / "bus_data.csv")
    patient = {row["ID"]: row["Case"] for row in data}
    sides = defaultdict(list)
    for row in data:
        sides[row["Case"]].append(row["Side"])
    assert set(map(tuple, sides.values())) == {("left", "right"), ("single",)}
    for folds in (5, 10):
        rows = rows_of(root / f"{folds}-fold-cv.csv")
        valid = [f"valid_{k}" for k in range(1, folds + 1)]
        assert list(rows[0]) == ["ID", "Pathology", "kFold", *valid]
        assert [row["ID"] for row in rows] == [row["ID"] for row in data]
        fold_of, cut = defaultdict(set), 0
        inner = defaultdict(set)
        for row in rows:
            fold_of[patient[row["ID"]]].add(row["kFold"])
            for column in valid:
                assert (row[column] == "NaN") == (column == f"valid_{row['kFold']}")
                inner[patient[row["ID"]], column].add(row[column])
        assert all(len(found) == 1 for found in fold_of.values())
        cut = sum(len(found) > 1 for found in inner.values())
        assert cut > 0  # the defect of the published files


def test_bus_cot_layout(phantom):
    root = phantom / "BUSCoT"
    experts = json.loads((root / "DatasetFiles/BUS-Expert_dataset.json").read_text("utf-8"))
    lesions = json.loads((root / "DatasetFiles/lesion_dataset.json").read_text("utf-8"))
    aligned = Counter()
    for key, expert in experts.items():
        folder = root / "BUS-Expert" / key
        raw, cropped = (
            pixels(root / expert["image_file"][f"{n}_image"]) for n in ("raw", "cropped")
        )
        masks = [p for p in folder.glob(f"{key}@[0-9].png")]
        assert len(masks) == len(expert["us_report"]) == len(list(folder.glob("*_VISBOXMASK.png")))
        for mask in map(pixels, masks):
            assert mask.shape in (raw.shape, cropped.shape)
            assert mask.any()
            if raw.shape != cropped.shape:
                aligned["raw" if mask.shape == raw.shape else "cropped"] += 1
    assert set(aligned) == {"raw", "cropped"}
    for key, lesion in lesions.items():
        assert key == lesion["image_path"].removeprefix("BUS-Lesion/").replace("/", "_")
        assert (root / lesion["image_path"]).is_file()
        assert lesion["pathology_histology"]["pathology"] in ("Benign", "Malignant")
        assert lesion["us_report"]["BIRADS"] in ("2", "3", "4A", "4B", "4C", "5")
    assert {lesion["split"] for lesion in lesions.values()} == {"trainval", "test"}
    assert None in [r["us_report"]["LesionCalcificationFeatures"] for r in lesions.values()]


def test_bus_cot_holds_bus_bra_and_busi_again(phantom):
    root = phantom / "BUSCoT"
    experts = json.loads((root / "DatasetFiles/BUS-Expert_dataset.json").read_text("utf-8"))
    truth = {r["file_id"]: r for r in rows_of(phantom / "phantom_truth.csv")}
    seen = Counter()
    for key, expert in experts.items():
        seen[expert["dataset"]] += 1
        collection, number = expert["patient_id"].split("@")
        assert collection == expert["dataset"]
        if collection != "InHouse":
            original = truth[truth[key]["copy_of"]]
            assert original["collection"] == {"BUSBRA": "bus_bra", "BUSI": "busi"}[collection]
            assert int(number) == int("".join(filter(str.isdigit, original["file_id"])))
            copy = pixels(root / expert["image_file"]["raw_image"])
            assert np.array_equal(copy, pixels(phantom / original["path"]))
    assert min(seen["BUSBRA"], seen["BUSI"], seen["InHouse"]) >= 1


def test_lesion_crops_are_cut_from_their_frames(phantom):
    rows = [r for r in rows_of(phantom / "phantom_truth.csv") if "BUS-Lesion" in r["path"]]
    for row in rows:
        key = row["file_id"].split("_")[1].split("@")[0]
        crop = pixels(phantom / row["path"])
        frame = pixels(phantom / f"BUSCoT/BUS-Expert/{key}/{key}@cropped.png")
        windows = np.lib.stride_tricks.sliding_window_view(frame, crop.shape)
        assert (windows == crop).all(axis=(2, 3)).any()


def test_truth_names_every_image_once(phantom):
    rows = rows_of(phantom / "phantom_truth.csv")
    assert len({row["path"] for row in rows}) == len(rows)
    assert len({(row["collection"], row["file_id"]) for row in rows}) == len(rows)
    for row in rows:
        assert (phantom / row["path"]).is_file()
        for name, terms in VOCABULARY.items():
            for term in filter(None, row[name].split("&")):
                assert term in terms
        assert (row["pathology"] == "normal") == (row["lesion_count"] == "0")


def test_smallest_phantom_has_every_class(tmp_path):
    make_phantom(tmp_path, cases=3, seed=0, size_px=SIZE_PX)
    assert [p.parent.name for p in busi_images(tmp_path)] == ["benign", "malignant", "normal"]


def test_all_wrong_arguments_are_named_at_once(tmp_path):
    with pytest.raises(InputError, match=r"cases: 2.*size: 30.*seed: -1"):
        make_phantom(tmp_path, cases=2, seed=-1, size_px=30)
    assert not list(tmp_path.iterdir())


def test_no_half_collection_is_left_behind(tmp_path, monkeypatch):
    make_phantom(tmp_path, cases=3, seed=0, size_px=SIZE_PX)
    before = sha256_folder(tmp_path)

    def full_disk(*_, **__):
        raise OSError("no space left on device")

    monkeypatch.setattr(phantom_collections, "_busi_masks", full_disk)
    with pytest.raises(OSError, match="no space"):
        make_phantom(tmp_path, cases=3, seed=1, size_px=SIZE_PX)
    assert sha256_folder(tmp_path) == before
