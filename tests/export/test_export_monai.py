import json

import numpy as np
import torch
from monai.data import CacheDataset, DataLoader, load_decathlon_datalist
from monai.transforms import Compose, LoadImaged, RandFlipd
from small_tables import image_of, judged, mask_of, rows, write, write_splits

from stdiff.export.export import export_cases
from stdiff.export.selection import Choice


def loaded(datalist, section="training"):
    return load_decathlon_datalist(datalist, True, section)


def test_monai_loads_the_tables_pixels(tmp_path):
    # Nothing is known of the last case: an empty caption is not to be taken for a path.
    made = [*rows(4), {**rows(5)[4], "caption": "", "pathology": None, "birads": None}]
    export_cases(Choice([write(made, tmp_path / "a.parquet")]), tmp_path / "out", "monai")
    entries = loaded(tmp_path / "out/datalist.json")
    assert [entry["case_id"] for entry in entries] == [row["case_id"] for row in made]
    assert entries[0]["caption"] == made[0]["caption"] and entries[-1]["caption"] == "unknown"
    load = LoadImaged(keys=["image", "label"], ensure_channel_first=True)
    for item, row in zip(CacheDataset(entries, load, progress=False), made, strict=True):
        # MONAI's first axis in space is the image's width.
        assert np.array_equal(item["image"][0].numpy().T, image_of(row))
        assert np.array_equal(item["label"][0].numpy().T, mask_of(row))
        assert item["synthetic"] is True


def test_batches_of_it_can_be_trained_on(tmp_path):
    export_cases(Choice([write(rows(6), tmp_path / "a.parquet")]), tmp_path / "out", "monai")
    entries = loaded(tmp_path / "out/datalist.json")
    keys = ["image", "label"]
    transform = Compose([LoadImaged(keys, ensure_channel_first=True), RandFlipd(keys, prob=0.5)])
    batches = list(DataLoader(CacheDataset(entries, transform, progress=False), batch_size=3))
    assert [tuple(batch["image"].shape) for batch in batches] == [(3, 1, 16, 16)] * 2
    assert set(torch.unique(batches[0]["label"]).tolist()) == {0, 1}
    assert batches[0]["caption"] == [entry["caption"] for entry in entries[:3]]


def test_splits_make_further_lists(tmp_path):
    real = write(rows(3, "busi", synthetic=False), tmp_path / "real.parquet")
    made = rows(2)
    made[0] = judged(made[0], "seam")
    roles = {f"busi/{i:08d}": role for i, role in enumerate(("train", "validation", "test"))}
    splits = write_splits(roles, tmp_path / "splits.parquet")
    choice = Choice([real, write(made, tmp_path / "a.parquet")], splits=splits, rejected_too=True)
    export_cases(choice, tmp_path / "out", "monai")
    datalist = tmp_path / "out/datalist.json"
    found = {name: loaded(datalist, name) for name in ("training", "validation", "testing")}
    assert [len(entries) for entries in found.values()] == [3, 1, 1]
    assert [entry["accepted"] for entry in found["training"]] == [True, False, True]
    assert [entry["synthetic"] for entry in found["training"]] == [False, True, True]
    assert json.loads(datalist.read_text())["numTraining"] == 3
    assert {p.name for p in (tmp_path / "out").iterdir()} == {
        *("images", "labels", "datalist.json", "README.txt")
    }


def test_a_list_without_entries_is_still_a_list(tmp_path):
    real = write(rows(1, "busi", synthetic=False), tmp_path / "real.parquet")
    splits = write_splits({"busi/00000000": "train"}, tmp_path / "splits.parquet")
    export_cases(Choice([real], splits=splits), tmp_path / "out", "monai")
    assert loaded(tmp_path / "out/datalist.json", "testing") == []
