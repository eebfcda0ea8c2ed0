import csv

import numpy as np
import pytest
from PIL import Image

from stdiff.cases import SCHEMA, case_row, png_cell, write_cases
from stdiff.corpus import export
from stdiff.corpus.export import export_folders
from stdiff.files import InputError
from stdiff.lexicon import Findings


def rows(count=6, collection="syn", synthetic=True):
    made = []
    for i in range(count):
        mask = np.zeros((16, 16), np.uint8)
        mask[4:8, 4 : 6 + i] = 255
        made.append(
            case_row(
                case_id=f"{collection}/{i:08d}",
                collection=collection,
                image=png_cell(mask // 3 + i, "i"),
                mask=png_cell(mask, "m") if i else None,
                height_px=16,
                width_px=16,
                flags=["synthetic"] if synthetic else [],
                model_sha256="a" * 64 if synthetic else None,
                transform={"scale_x": 2.0},
                **Findings(birads="4A", margin=("indistinct", "spiculated")).as_row(),
            )
        )
    return made


def test_folders_hold_what_the_tables_held(tmp_path, monkeypatch):
    monkeypatch.setattr(export, "_ROWS_AT_ONCE", 4)
    write_cases(rows(), tmp_path / "a.parquet")
    write_cases(rows(3, "busi", synthetic=False), tmp_path / "b.parquet")
    to = tmp_path / "out"
    export_folders([tmp_path / "a.parquet", tmp_path / "b.parquet"], to)
    with (to / "cases.csv").open(newline="") as handle:
        lines = list(csv.DictReader(handle))
    assert set(lines[0]) == {*SCHEMA.names, "synthetic"}
    assert [line["synthetic"] for line in lines] == ["yes"] * 6 + ["no"] * 3
    assert lines[2]["margin"] == "indistinct;spiculated"
    for row, line in zip(rows() + rows(3, "busi"), lines, strict=True):
        assert line["case_id"] == row["case_id"]
        assert (to / line["image"]).read_bytes() == row["image"]["bytes"]
        if row["mask"] is None:
            assert line["mask"] == ""
        else:
            assert np.array_equal(np.unique(np.asarray(Image.open(to / line["mask"]))), [0, 255])
    assert len(list((to / "images").iterdir())) == 9
    assert len(list((to / "masks").iterdir())) == 7
    readme = (to / "README.txt").read_text()
    assert "6 of the 9 images here are SYNTHETIC" in readme
    assert "NOT for diagnosis" in readme


def test_a_plan_can_be_exported_without_images(tmp_path):
    write_cases([{**row, "image": None} for row in rows()[1:]], tmp_path / "plan.parquet")
    export_folders([tmp_path / "plan.parquet"], tmp_path / "out")
    assert not list((tmp_path / "out/images").iterdir())
    assert len(list((tmp_path / "out/masks").iterdir())) == 5


def test_names_stay_within_the_folder(tmp_path):
    row = {**rows(2)[1], "case_id": "../../évil\\x"}
    write_cases([row], tmp_path / "a.parquet")
    export_folders([tmp_path / "a.parquet"], tmp_path / "out")
    assert [p.name for p in (tmp_path / "out/images").iterdir()] == [".._.._" + "_vil_x.png"]


def test_nothing_of_the_users_is_overwritten(tmp_path):
    write_cases(rows(), tmp_path / "a.parquet")
    with pytest.raises(InputError, match="already holds something"):
        export_folders([tmp_path / "a.parquet"], tmp_path)
    assert (tmp_path / "a.parquet").exists()
    (tmp_path / "empty").mkdir()
    export_folders([tmp_path / "a.parquet"], tmp_path / "empty")
    assert (tmp_path / "empty/cases.csv").exists()


def _no_bytes(row):
    return {**row, "image": {"bytes": None, "path": "elsewhere.png"}}


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda table: table + table[:1], "would both be written"),
        (lambda table: [*table, {**table[0], "case_id": "SYN_00000000"}], "would both be written"),
        (lambda table: [*table[:-1], _no_bytes(table[-1])], "image holds no bytes"),
        (lambda table: [], "nothing to export"),
    ],
)
def test_a_failed_export_leaves_nothing(tmp_path, spoil, said):
    write_cases(spoil(rows()), tmp_path / "a.parquet")
    with pytest.raises(InputError, match=said):
        export_folders([tmp_path / "a.parquet"], tmp_path / "out")
    assert [p.name for p in tmp_path.iterdir()] == ["a.parquet"]


def test_what_is_no_case_table_is_refused(tmp_path):
    (tmp_path / "text.parquet").write_text("text")
    for name, said in (("text.parquet", "not a readable"), ("none.parquet", "no such case table")):
        with pytest.raises(InputError, match=said):
            export_folders([tmp_path / name], tmp_path / "out")
    assert not (tmp_path / "out").exists()
