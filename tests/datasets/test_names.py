"""Files and patients whose names look equal are equal, in every collection."""

import json
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from stdiff.cli.main import main
from stdiff.datasets.harmonize import harmonize
from stdiff.datasets.patients import alike_patients
from stdiff.datasets.readers import read_raw
from stdiff.datasets.rows import Harmonization
from stdiff.splitting.splits import split_tables
from stdiff.table.cases import read_cases

COMPOSED, APART = "L\u00e4sion", "La\u0308sion"
# 'note' in Chinese, as an archive from a Chinese Windows is unpacked on Linux. Its first two bytes
# happen to be UTF-8, of ˵.
GBK = "说明".encode("gbk")


@pytest.mark.parametrize("collection", ["busi", "bus_bra", "breast", "bus_uclm"])
def test_suffixes_in_capitals(collection, request):
    root = request.getfixturevalue(collection)
    expected = [case.case_id for case in read_raw(collection, root)[0]]
    for path in root.rglob("*.png"):
        path.rename(path.with_suffix(".PNG"))
    cases, problems = read_raw(collection, root)
    assert [case.case_id for case in cases] == expected and not problems
    assert all(case.mask_paths or case.lesion_free for case in cases)


def test_of_two_files_whose_names_look_equal_the_one_named_is_read(bus_bra, draw):
    draw.save(bus_bra / "Images" / "bus_0001-l.PNG", draw.speckle(1))
    cases, problems = read_raw("bus_bra", bus_bra)
    assert cases[0].image_path.name == "bus_0001-l.png"
    assert [problem.source_path for problem in problems] == ["Images/bus_0001-l.PNG"]


def test_unicode_forms_of_image_mask_and_metadata(tmp_path, draw):
    draw.save(tmp_path / "images" / f"{COMPOSED}.png", draw.speckle(1))
    draw.save(tmp_path / "masks" / f"{APART}.PNG", draw.disc())
    (tmp_path / "metadata.csv").write_text(f"stem,patient_id\n{APART}.Png,{APART}\n")
    (case,), problems = read_raw("folder", tmp_path)
    assert not problems and case.mask_paths
    assert (case.case_id, case.patient_id) == (f"folder/{COMPOSED}", COMPOSED)


@pytest.mark.parametrize("collection", ["busi", "bus_bra", "breast", "bus_uclm", "folder"])
def test_a_name_that_is_not_utf_8_is_one_file_left_out(collection, request, tmp_path, draw, capsys):
    if collection == "folder":
        root = folder = tmp_path / "own"
        draw.save(root / "images" / "a.png", draw.speckle(1))
        folder = root / "images"
    else:
        root = request.getfixturevalue(collection)
        folder = next(root.rglob("*.png")).parent
    good = sorted(folder.glob("*.png"))[0].read_bytes()
    for name in (GBK + b".txt", GBK + b".png"):
        with open(os.path.join(os.fsencode(folder), name), "wb") as file:
            file.write(good)
    before = len(read_raw(collection, root)[0])
    table, quarantine = tmp_path / "t.parquet", tmp_path / "q.parquet"
    harmonize(collection, root, table, quarantine, how=Harmonization(32))
    assert len(read_cases(table)) == before > 0
    left_out = pd.read_parquet(quarantine)["source_path"]
    assert {"˵\\xc3\\xf7.txt", "˵\\xc3\\xf7.png"} == {Path(p).name for p in left_out if "\\x" in p}
    assert main(["verify", str(root), "--collection", collection]) == 1
    assert "˵\\xc3\\xf7.txt" in capsys.readouterr().out


def test_a_line_break_in_a_name_is_one_file_left_out(tmp_path, draw):
    for name in ("a", "b\nc"):
        draw.save(tmp_path / "images" / f"{name}.png", draw.speckle(1))
    cases, (problem,) = read_raw("folder", tmp_path)
    assert [case.case_id for case in cases] == ["folder/a"]
    assert problem.source_path == "images/b\\nc.png" and "line break" in problem.reason


def test_what_a_spreadsheet_makes_of_numbers_changes_no_case(bus_bra, draw):
    rows = [draw.bra_row(n, side) for n in (1, 2, 3) for side in "lr"]
    expected = read_raw("bus_bra", bus_bra)
    for row in rows[1::2]:
        row |= {name: f"{row[name]}.0" for name in ("Case", "BIRADS", "Width", "Height")}
        row |= {"Pathology": row["Pathology"].upper(), "BBOX": "[31.0, 16.0, 20.0, 20.0]"}
    draw.write_bra_csv(bus_bra, rows)
    assert read_raw("bus_bra", bus_bra) == expected
    draw.write_bra_csv(bus_bra, [row | {"BIRADS": "nan", "Histology": "NA"} for row in rows])
    cases, problems = read_raw("bus_bra", bus_bra)
    assert not problems and {(c.findings.birads, c.histology, c.flags) for c in cases} == {
        (None, None, ())
    }


def test_cells_of_own_metadata(tmp_path, draw):
    for k in range(4):
        draw.save(tmp_path / "images" / f"{k:03d}.png", draw.speckle(k))
    (tmp_path / "metadata.csv").write_text(
        ",stem,Patient_ID,BI-RADS,pathology,margin\n"
        "0,000,1.0,4.0,benign,Angular & SPICULATED\n1,001,1,4,Benign,\n"
        "2,002,2.0,4a,MALIGNANT,nan\n3,003,nan,NaN,malignant,\n"
    )
    cases, problems = read_raw("folder", tmp_path)
    assert not problems
    assert [case.patient_id for case in cases] == ["1", "1", "2", None]
    assert [case.findings.birads for case in cases] == ["4", "4", "4A", None]
    assert cases[0].findings.margin == ("angular", "spiculated")


def test_stems_that_lost_their_zeros_keep_their_rows(tmp_path, draw):
    for stem in ("000", "001", "0002", "02", "5"):
        draw.save(tmp_path / "images" / f"{stem}.png", draw.speckle(len(stem)))
    (tmp_path / "metadata.csv").write_text("stem,patient_id\n0,7\n1.0,7\n2,8\n5,9\n")
    cases, problems = read_raw("folder", tmp_path)
    patients = {case.case_id: case.patient_id for case in cases}
    assert patients == dict.fromkeys(("folder/000", "folder/001"), "7") | {
        "folder/0002": None,
        "folder/02": None,
        "folder/5": "9",
    }
    # Which of 0002 and 02 is meant is not guessed.
    assert [problem.reason for problem in problems] == ["names '2', but no image has this stem"]
    assert [case.flags for case in cases if case.patient_id] == [
        *[("metadata_by_number",)] * 2,
        (),
    ]


def test_patients_that_look_like_one_are_named(tmp_path, draw, capsys):
    for k, patient in enumerate(("01", "1", "1.0", "P1", "2")):
        draw.save(tmp_path / "images" / f"{k}.png", np.roll(draw.speckle(k), k))
        draw.save(tmp_path / "masks" / f"{k}.png", draw.disc())
        with (tmp_path / "metadata.csv").open("a") as file:
            file.write("" if k else "stem,patient_id\n")
            file.write(f"{k},{patient}\n")
    table = tmp_path / "t.parquet"
    harmonize("folder", tmp_path, table, tmp_path / "q.parquet", how=Harmonization(32))
    (line,) = alike_patients(read_cases(table))
    assert line.startswith("patients '01' (1 images) and '1' (2 images) of folder: look like one")
    assert main(["verify", str(table)]) == 1 and line in capsys.readouterr().out
    split_tables([table], tmp_path / "s.parquet", seed=0, test=0.3, validation=0.2)
    assert line in capsys.readouterr().err


def test_numbers_of_bus_cot_may_be_json_numbers(bus_cot):
    path = bus_cot / "DatasetFiles" / "BUS-Expert_dataset.json"
    entries = json.loads(path.read_text())
    for key, patient in zip(entries, (0, 7, 7.0), strict=False):
        entries[key] |= {
            "patient_id": patient,
            "us_report": {"0": {"BIRADS": 4.0, "EchoCharacteristics": "lowecho"}},
        }
    path.write_text(json.dumps(entries))
    cases = [case for case in read_raw("bus_cot", bus_cot)[0] if "expert" in case.case_id]
    assert [case.patient_id for case in cases] == ["0", "7", "7"]
    assert {(c.findings.birads, c.findings.echo_pattern) for c in cases} == {("4", "hypoechoic")}
