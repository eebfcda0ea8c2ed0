import json
import shutil

import numpy as np
import pandas as pd
import pytest

from stdiff.datasets.harmonize import harmonize
from stdiff.datasets.integrity import inspect_raw
from stdiff.datasets.readers import READERS, read_raw
from stdiff.datasets.rows import Harmonization
from stdiff.runtime.files import InputError
from stdiff.table.cases import read_cases


def run(collection, raw, tmp_path, **options):
    """Case ids that remain, and quarantine reasons by source path."""
    out, quarantine = tmp_path / "cases.parquet", tmp_path / "quarantine.parquet"
    how = Harmonization(options.pop("size_px", 32), options.pop("fit", "stretch"))
    harmonize(collection, raw, out, quarantine, how=how, **options)
    left_out = pd.read_parquet(quarantine)
    reasons = dict(zip(left_out["source_path"], left_out["reason"], strict=True))
    return list(read_cases(out)["case_id"]), reasons


@pytest.mark.parametrize("collection", sorted(READERS))
def test_missing_data_root(collection, tmp_path):
    with pytest.raises(InputError, match="nowhere: no such folder; give"):
        read_raw(collection, tmp_path / "nowhere")


@pytest.mark.parametrize("collection", sorted(READERS))
def test_wrong_layout_says_what_was_expected_and_found(collection, tmp_path):
    (tmp_path / "something").mkdir()
    with pytest.raises(InputError, match="(?s)found something.*|expected .*found something"):
        read_raw(collection, tmp_path)


def test_unknown_collection_and_options(busi, tmp_path):
    with pytest.raises(InputError, match="'udiat' is not known; expected one of breast"):
        run("udiat", busi, tmp_path)
    with pytest.raises(InputError, match="fit: 'squash'"):
        run("busi", busi, tmp_path, fit="squash")
    with pytest.raises(InputError, match="limit: 0"):
        run("busi", busi, tmp_path, limit=0)


def test_csv_without_columns_names_all_of_them(bus_bra, draw):
    draw.write_bra_csv(bus_bra, [], header=["ID", "Case", "Pathology"])
    with pytest.raises(
        InputError, match="Histology, BIRADS, Device, Width, Height, Side, BBOX missing"
    ):
        read_raw("bus_bra", bus_bra)


def test_duplicate_ids_are_all_named(bus_bra, draw):
    rows = [draw.bra_row(n, "l") for n in (1, 1, 2, 2, 2, 3)]
    draw.write_bra_csv(bus_bra, rows)
    with pytest.raises(InputError, match=r"bus_0001-l \(2 times\), bus_0002-l \(3 times\)"):
        read_raw("bus_bra", bus_bra)


def test_csv_that_is_no_csv(bus_bra):
    table = bus_bra / "bus_data.csv"
    whole = table.read_text(encoding="utf-8")
    table.write_bytes(whole.replace("fibroadenoma", "fibroadénome").encode("cp1252"))
    with pytest.raises(InputError, match="bus_data.csv: not a UTF-8 CSV file .*save it as"):
        read_raw("bus_bra", bus_bra)
    table.write_bytes(b"")
    with pytest.raises(InputError, match="ID, Case, .* missing; found none"):
        read_raw("bus_bra", bus_bra)
    table.unlink()
    table.mkdir()
    with pytest.raises(InputError, match="bus_data.csv: no such file"):
        read_raw("bus_bra", bus_bra)


def test_csv_saved_by_a_spreadsheet_reads_alike(bus_bra, draw):
    expected = read_raw("bus_bra", bus_bra)
    rows = [draw.bra_row(n, side, ID=f" bus_{n:04d}-{side} ") for n in (1, 2, 3) for side in "lr"]
    lines = [";".join(draw.header), *(";".join(row[c] for c in draw.header) for row in rows)]
    text = "\r\n".join([*lines, ";" * 9, ""])
    (bus_bra / "bus_data.csv").write_text(text, encoding="utf-8-sig", newline="")
    assert read_raw("bus_bra", bus_bra) == expected


def test_a_row_whose_cells_have_moved_is_left_out(bus_bra, tmp_path):
    table = bus_bra / "bus_data.csv"
    text = table.read_text(encoding="utf-8")
    table.write_text(text.replace("fibroadenoma", "carcinoma, ductal", 1), encoding="utf-8")
    kept, reasons = run("bus_bra", bus_bra, tmp_path)
    assert len(kept) == 5
    assert "more cells than columns" in reasons["Images/bus_0001-l.png"]


@pytest.mark.parametrize("collection", ["busi", "bus_bra", "bus_cot", "breast", "bus_uclm"])
@pytest.mark.parametrize("which", ["image", "mask"])
@pytest.mark.parametrize("damage", ["zero bytes", "truncated", "text", "folder", "dangling link"])
def test_one_damaged_file_costs_one_case_and_is_named(collection, which, damage, request, draw):
    root = request.getfixturevalue(collection)
    cases, _ = read_raw(collection, root)
    case = next(case for case in cases if case.mask_paths and not case.lesion_free)
    path = case.image_path if which == "image" else case.mask_paths[0]
    whole = path.read_bytes()
    path.unlink()
    if damage == "folder":
        path.mkdir()
    elif damage == "dangling link":
        path.symlink_to(path.parent / "gone.png")
    else:
        contents = {"zero bytes": b"", "truncated": whole[: len(whole) // 2], "text": b"hello"}
        path.write_bytes(contents[damage])
    kept, reasons = draw.usable(collection, root)
    assert kept == [c.case_id for c in cases if c.case_id != case.case_id]
    ((source, reason),) = reasons.items()
    assert source in (case.source_path, "BUS-Expert/000000")
    assert path.name in reason and "cannot be read as an image" in reason


def test_one_busi_number_in_two_spellings(busi, draw):
    draw.save(busi / "benign" / "benign (01).png", draw.speckle(5))
    with pytest.raises(InputError, match=r"0001 \(2 times\)"):
        read_raw("busi", busi)


def test_duplicate_json_key(bus_cot):
    path = bus_cot / "DatasetFiles" / "lesion_dataset.json"
    path.write_text('{"trainval_000000@0.png": {}, "trainval_000000@0.png": {}}')
    with pytest.raises(InputError, match=r"trainval_000000@0.png \(2 times\)"):
        read_raw("bus_cot", bus_cot)


@pytest.mark.parametrize("text", ["[1, 2]", "{broken"])
def test_json_that_is_no_object(bus_cot, text):
    (bus_cot / "DatasetFiles" / "lesion_dataset.json").write_text(text)
    with pytest.raises(InputError, match=r"lesion_dataset\.json: (holds a list|not a readable)"):
        read_raw("bus_cot", bus_cot)


def test_bad_files_are_quarantined_and_the_run_goes_on(busi, tmp_path, draw):
    folder = busi / "benign"
    whole = (folder / "benign (1).png").read_bytes()
    (folder / "benign (1).png").write_bytes(whole[: len(whole) // 2])
    draw.save(folder / "benign (2)_mask.png", draw.disc(height=61))
    draw.save(folder / "benign (3)_mask.png", np.zeros_like(draw.disc()))
    malignant = busi / "malignant"
    (malignant / "malignant (1)_mask.png").unlink()
    (malignant / "malignant (2).png").unlink()
    (malignant / "notes.txt").write_text("hello")
    (malignant / "malignant (3).png").write_text("no image at all")
    draw.save(busi / "normal" / "normal (1)_mask.png", draw.disc())
    kept, reasons = run("busi", busi, tmp_path)
    assert kept == ["busi/normal-0002", "busi/normal-0003"]
    expected = {
        "benign/benign (1).png": "cannot be read as an image",
        "benign/benign (2).png": "mask of 80 x 61 px for an image of 80 x 60 px",
        "benign/benign (3).png": "mask is empty",
        "malignant/malignant (1).png": "no mask file",
        "malignant/malignant (2)_mask.png": "mask without its image",
        "malignant/notes.txt": "name not understood",
        "malignant/malignant (3).png": "cannot be read as an image",
        "normal/normal (1).png": "marks a lesion",
    }
    assert set(reasons) == set(expected)
    assert all(part in reasons[path] for path, part in expected.items())
    assert not any(str(tmp_path) in reason for reason in reasons.values())
    lines = inspect_raw("busi", busi, tmp_path / "verified.parquet").problems
    assert len(lines) == len(expected) and all(line.split(": ")[0] in expected for line in lines)


def test_rows_of_the_csv_that_cannot_be_used(bus_bra, tmp_path, draw):
    rows = [draw.bra_row(n, side) for n in (1, 2, 3) for side in "lr"]
    rows[0]["ID"] = "patient-1"
    rows[1]["Case"] = " "
    rows.append(draw.bra_row(9, "l"))
    draw.write_bra_csv(bus_bra, rows)
    (bus_bra / "Masks" / "mask_0002-r.png").unlink()
    draw.save(bus_bra / "Images" / "bus_0077-s.png", draw.speckle(1))
    kept, reasons = run("bus_bra", bus_bra, tmp_path)
    assert kept == ["bus_bra/bus_0002-l", "bus_bra/bus_0003-l", "bus_bra/bus_0003-r"]
    assert "ID 'patient-1'; expected e.g. bus_0001-l" in reasons["Images/patient-1.png"]
    assert "not named in bus_data.csv" in reasons["Images/bus_0001-l.png"]
    assert "not named in bus_data.csv" in reasons["Masks/mask_0001-l.png"]
    assert "patient" in reasons["Images/bus_0001-r.png"]
    assert "mask is missing" in reasons["Images/bus_0002-r.png"]
    assert "image is missing" in reasons["Images/bus_0009-l.png"]
    assert "not named in bus_data.csv" in reasons["Images/bus_0077-s.png"]


def test_bus_cot_does_not_guess(bus_cot, tmp_path, draw):
    frames = bus_cot / "BUS-Expert"
    draw.save(frames / "000000" / "000000@0.png", draw.disc(59, 80))
    draw.save(frames / "000002" / "000002@cropped.png", draw.speckle(77))
    shutil.rmtree(frames / "000001")
    (bus_cot / "BUS-Lesion" / "trainval" / "000000@0.png").unlink()
    draw.save(bus_cot / "BUS-Lesion" / "trainval" / "000050@0.png", draw.speckle(8))
    kept, reasons = run("bus_cot", bus_cot, tmp_path)
    assert kept == [f"bus_cot/lesion-trainval_{key}@0" for key in ("000001", "000002", "000009")]
    assert "fit 0 of the frames" in reasons["BUS-Expert/000000"]
    assert "fit 2 of the frames" in reasons["BUS-Expert/000002"]
    assert "folder is missing" in reasons["BUS-Expert/000001"]
    assert "is missing" in reasons["BUS-Lesion/trainval_000000@0.png"]
    assert "not named" in reasons["BUS-Lesion/trainval/000050@0.png"]


def test_bus_cot_paths_cannot_leave_the_collection(bus_cot, tmp_path, draw):
    draw.save(tmp_path / "raw" / "secret.png", draw.speckle(1))
    lesions = {"trainval_000000@0.png": {"image_path": "../../../secret.png"}}
    (bus_cot / "DatasetFiles" / "lesion_dataset.json").write_text(json.dumps(lesions))
    problems = read_raw("bus_cot", bus_cot)[1]
    assert any("BUS-Lesion/trainval/secret.png is missing" in p.reason for p in problems)


def test_nothing_usable_is_an_error_and_leaves_no_table(busi, tmp_path):
    for path in busi.rglob("*.png"):
        path.write_text("not an image")
    with pytest.raises(InputError, match="no usable case of busi"):
        run("busi", busi, tmp_path)
    assert not (tmp_path / "cases.parquet").exists()
    assert len(pd.read_parquet(tmp_path / "quarantine.parquet")) == 9


def test_a_lesion_too_small_for_the_square_is_not_called_lesion_free(busi, tmp_path, draw):
    speck = np.zeros_like(draw.disc())
    speck[0, 0] = True
    draw.save(busi / "benign" / "benign (1)_mask.png", speck)
    kept, reasons = run("busi", busi, tmp_path)
    assert "busi/benign-0001" not in kept
    assert "no pixel of the lesion is left at 32 px" in reasons["benign/benign (1).png"]
