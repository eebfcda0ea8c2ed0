import numpy as np
import pytest
import yaml
from small_tables import image_of, judged, mask_of, rows, write, write_splits

from stdiff.export import huggingface
from stdiff.export.export import export_cases
from stdiff.export.selection import Choice
from stdiff.table.cases import read_cases, verify_table

datasets = pytest.importorskip("datasets", reason="Hugging Face's datasets is not installed")


@pytest.fixture(autouse=True)
def offline(monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)


def assert_same(found, table):
    """Pictures and terms of a loaded data set are those of the rows."""
    assert len(found) == len(table)
    for case, row in zip(found, table, strict=True):
        assert case["case_id"] == row["case_id"]
        assert case["image"].mode == "L"
        assert np.array_equal(np.asarray(case["image"]), image_of(row))
        if row["mask"] is None:
            assert case["mask"] is None
        else:
            assert np.array_equal(np.asarray(case["mask"]) // 255, mask_of(row))
        assert case["margin"] == row["margin"] and case["caption"] == row["caption"]


def test_a_shard_opens_as_it_is_with_its_images(tmp_path):
    first, second = rows(6, first_unlabelled=True), rows(3, "more")
    files = [write(first, tmp_path / "0.parquet"), write(second, tmp_path / "1.parquet")]
    found = datasets.load_dataset(
        "parquet", data_files=list(map(str, files)), split="train", cache_dir=str(tmp_path / "c")
    )
    assert isinstance(found.features["image"], datasets.Image)
    assert isinstance(found.features["mask"], datasets.Image)
    assert_same(found, first + second)


def test_the_folder_opens_by_its_card(tmp_path, monkeypatch):
    monkeypatch.setattr(huggingface, "_ROWS_IN_A_GROUP", 4)
    monkeypatch.setattr(huggingface, "_ROWS_IN_A_FILE", 8)
    made, real = rows(21, first_unlabelled=True), rows(3, "busi", synthetic=False)
    made[5] = judged(made[5], "seam")
    paths = [write(made, tmp_path / "made.parquet"), write(real, tmp_path / "real.parquet")]
    roles = {f"busi/{i:08d}": role for i, role in enumerate(("train", "validation", "test"))}
    splits = write_splits(roles, tmp_path / "splits.parquet")
    to = tmp_path / "out"
    export_cases(Choice(paths, splits=splits), to, "huggingface")
    train = made[:5] + made[6:] + real[:1]
    assert sorted(p.name for p in (to / "data").iterdir()) == [
        *("test-00000.parquet", "train-00000.parquet", "train-00001.parquet"),
        *("train-00002.parquet", "validation-00000.parquet"),
    ]
    found = datasets.load_dataset(str(to), cache_dir=str(tmp_path / "cache"))
    assert list(found) == ["train", "validation", "test"]
    assert_same(found["train"], train)
    assert_same(found["validation"], real[1:2])
    assert_same(found["test"], real[2:])
    streamed = datasets.load_dataset(str(to), split="train", streaming=True)
    assert_same(list(streamed), train)


def test_files_of_the_folder_are_case_tables_themselves(tmp_path):
    export_cases(Choice([write(rows(), tmp_path / "a.parquet")]), tmp_path / "out", "huggingface")
    (file,) = (tmp_path / "out/data").iterdir()
    assert verify_table(file) == []
    assert list(read_cases(file)["case_id"]) == [row["case_id"] for row in rows()]


def test_the_card_says_what_it_is(tmp_path):
    table = rows(2) + rows(1, "bus_uclm", synthetic=False)
    splits = write_splits({"bus_uclm/00000000": "train"}, tmp_path / "splits.parquet")
    choice = Choice([write(table, tmp_path / "a.parquet")], splits=splits)
    export_cases(choice, tmp_path / "out", "huggingface")
    _, front, text = (tmp_path / "out/README.md").read_text().split("---\n", 2)
    about = yaml.safe_load(front)
    assert about["license"] == "other" and "synthetic" in about["tags"]
    assert about["configs"][0]["data_files"] == [{"split": "train", "path": "data/train-*.parquet"}]
    assert "2 of the 3 images here are SYNTHETIC" in text and "NOT for diagnosis" in text
    assert "CC BY-NC 4.0" in text
