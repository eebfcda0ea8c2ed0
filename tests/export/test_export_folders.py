import csv

import numpy as np
from PIL import Image
from small_tables import judged, rows, write, write_splits

from stdiff.cli.main import main
from stdiff.export.export import export_cases
from stdiff.export.selection import Choice
from stdiff.table import streaming as tables
from stdiff.table.cases import SCHEMA


def lines_of(folder):
    with (folder / "cases.csv").open(newline="") as handle:
        return list(csv.DictReader(handle))


def test_folders_hold_what_the_tables_held(tmp_path, monkeypatch):
    monkeypatch.setattr(tables, "_ROWS_AT_ONCE", 4)
    made, real = rows(first_unlabelled=True), rows(3, "busi", synthetic=False)
    paths = [write(made, tmp_path / "a.parquet"), write(real, tmp_path / "b.parquet")]
    splits = write_splits({f"busi/{i:08d}": "test" for i in range(3)}, tmp_path / "s.parquet")
    to = tmp_path / "out"
    export_cases(Choice(paths, splits=splits), to)
    lines = lines_of(to)
    assert set(lines[0]) == {*SCHEMA.names, "synthetic", "role"} - {"fingerprint", "background"}
    assert [line["synthetic"] for line in lines] == ["yes"] * 6 + ["no"] * 3
    assert lines[2]["margin"] == "indistinct;spiculated"
    for row, line in zip(made + real, lines, strict=True):
        assert line["case_id"] == row["case_id"]
        assert (to / line["image"]).read_bytes() == row["image"]["bytes"]
        if row["mask"] is None:
            assert line["mask"] == ""
        else:
            assert np.array_equal(np.unique(np.asarray(Image.open(to / line["mask"]))), [0, 255])
    assert len(list((to / "images").iterdir())) == 9
    assert len(list((to / "masks").iterdir())) == 8
    readme = (to / "README.txt").read_text()
    assert "6 of the 9 images here are SYNTHETIC" in readme
    assert "NOT for diagnosis" in readme
    # The licence of real images goes with them.
    assert "10.1016/j.dib.2019.104863" in readme


def test_the_csv_says_role_and_verdict_where_they_are_asked_for(tmp_path):
    made = rows(3)
    made = [judged(made[0]), judged(made[1], "seam"), made[2]]
    table = write(made + rows(1, "busi", synthetic=False), tmp_path / "a.parquet")
    splits = write_splits({"busi/00000000": "test"}, tmp_path / "splits.parquet")
    options = ["--splits", str(splits), "--rejected-too", "--to", str(tmp_path / "out")]
    assert main(["export", str(table), *options]) == 0
    lines = lines_of(tmp_path / "out")
    assert [line["accepted"] for line in lines] == ["yes", "no", "", ""]
    assert [line["role"] for line in lines] == ["train", "train", "train", "test"]
    table = write(made, tmp_path / "made.parquet")
    assert main(["export", str(table), "--to", str(tmp_path / "plain")]) == 0
    assert len(lines_of(tmp_path / "plain")) == 2
    assert not {"accepted", "role"} & set(lines_of(tmp_path / "plain")[0])


def test_a_plan_can_be_exported_without_images(tmp_path):
    plan = write([{**row, "image": None} for row in rows(5)], tmp_path / "plan.parquet")
    export_cases(Choice([plan]), tmp_path / "out")
    assert not list((tmp_path / "out/images").iterdir())
    assert len(list((tmp_path / "out/masks").iterdir())) == 5


def test_names_stay_within_the_folder(tmp_path):
    table = write([{**rows(1)[0], "case_id": "../../évil\\x"}], tmp_path / "a.parquet")
    export_cases(Choice([table]), tmp_path / "out")
    assert [p.name for p in (tmp_path / "out/images").iterdir()] == ["_._.._évil_x.png"]


def test_texts_that_a_spreadsheet_would_compute_are_shown(tmp_path):
    texts = {
        "case_id": "=1+1",
        "device": "@SUM(A1)",
        "histology": "-2+3|cmd",
        "patient_id": " ＝A1",
        "source_path": "+x.png",
        "flags": ["=a", "b"],
    }
    row = {**rows(1)[0], **texts, "pixel_spacing_mm": -0.5, "caption": "oval shape = round"}
    export_cases(Choice([write([row], tmp_path / "a.parquet")]), tmp_path / "out")
    (line,) = lines_of(tmp_path / "out")
    for name, text in texts.items():
        assert line[name] == "'" + (";".join(text) if isinstance(text, list) else text)
    assert line["pixel_spacing_mm"] == "-0.5" and line["caption"] == "oval shape = round"


def test_an_empty_folder_is_taken(tmp_path):
    table = write(rows(), tmp_path / "a.parquet")
    (tmp_path / "empty").mkdir()
    export_cases(Choice([table]), tmp_path / "empty")
    assert (tmp_path / "empty/cases.csv").exists()
