"""`stdiff verify`: everything that is wrong, at once, with what the files say."""

import shutil

import numpy as np
import pandas as pd
import pytest

from stdiff.cli.main import main
from stdiff.datasets.harmonize import harmonize
from stdiff.datasets.integrity import inspect_raw, inspect_tables
from stdiff.datasets.rows import Harmonization
from stdiff.near_duplicates import leaks
from stdiff.report.collections import write_integrity_page
from stdiff.table.cases import read_cases


def scene(key: int, height: int = 120, width: int = 150) -> np.ndarray:
    """Distinct tissue, large enough for the duplicate search."""
    from scipy.ndimage import gaussian_filter

    rough = np.random.default_rng([23, key]).normal(size=(height, width))
    tissue = gaussian_filter(rough, 3)
    return np.clip(110 + 40 * tissue / tissue.std(), 0, 255).astype(np.uint8)


@pytest.fixture
def faulty_busi(busi, draw):
    """One fault of each kind."""
    for k, name in enumerate(("benign (1)", "benign (2)", "malignant (1)", "normal (1)")):
        draw.save(busi / name.split()[0] / f"{name}.png", scene(k))
        mask = draw.disc(120, 150) if "normal" not in name else np.zeros((120, 150), bool)
        draw.save(busi / name.split()[0] / f"{name}_mask.png", mask)
    draw.save(busi / "malignant" / "malignant (2).png", scene(0))
    draw.save(busi / "malignant" / "malignant (2)_mask.png", draw.disc(120, 150))
    (busi / "benign" / "benign (3)_mask.png").unlink()
    (busi / "malignant" / "malignant (3).png").write_bytes(b"no picture")
    (busi / "normal" / "readme.txt").write_text("hello")
    return busi


def test_every_problem_is_listed_at_once(faulty_busi, tmp_path):
    found = inspect_raw("busi", faulty_busi, tmp_path / "cases.parquet")
    text = "\n".join(found.problems)
    assert "benign/benign (3).png: no mask file beside the image" in found.problems
    assert "malignant/malignant (3).png: " in text and "cannot be read as an image" in text
    assert "normal/readme.txt: name not understood" in text
    assert "benign/benign (1).png: label_conflict: benign, but shows the scene of " in text
    assert "malignant/malignant (2).png, which is malignant" in text
    assert len(found.problems) == 4
    assert str(faulty_busi) not in text, "a machine's path"


def test_counts_stand_before_the_problems(faulty_busi, tmp_path):
    text = inspect_raw("busi", faulty_busi, tmp_path / "cases.parquet").text()
    assert text.startswith("busi: 7 images, 3 left out")
    assert "normal 3, benign 2, malignant 2" in text
    assert "with a lesion 4, lesion-free 3" in text
    assert "80 to 150 px" in text
    assert "1 pairs of 2 images" in text
    assert "4 problem(s):" in text


def test_metadata_that_disagree_are_quoted_beside_the_file(bus_bra, draw, tmp_path):
    rows = [draw.bra_row(n, side) for n in (1, 2, 3) for side in "lr"]
    rows[3]["Width"] = "81"
    rows[0]["BBOX"] = "[1,1,20,20]"
    draw.write_bra_csv(bus_bra, rows)
    problems = inspect_raw("bus_bra", bus_bra, tmp_path / "cases.parquet").problems
    assert problems == [
        "Images/bus_0001-l.png: bbox_mismatch: metadata say (left, top, right, bottom) "
        "(0, 0, 20, 20), the mask has (30, 15, 50, 35)",
        "Images/bus_0002-r.png: csv_size_mismatch: metadata say 81 x 60 px, the file is 80 x 60",
    ]


def test_nothing_usable_is_still_a_list(busi, tmp_path):
    for path in busi.rglob("*.png"):
        path.write_bytes(b"")
    found = inspect_raw("busi", busi, tmp_path / "cases.parquet")
    assert len(found.problems) == 9 and len(found.cases) == 0
    write_integrity_page(found, [tmp_path / "cases.parquet"], busi, tmp_path / "page")
    assert (tmp_path / "page" / "index.html").is_file()


def test_a_table_can_be_verified(busi, tmp_path):
    table = tmp_path / "t.parquet"
    harmonize("busi", busi, table, tmp_path / "q.parquet", how=Harmonization(48))
    found = inspect_tables("all", [table])
    assert found.problems == []
    assert "all: 9 images" in found.text()
    broken = pd.read_parquet(table)
    assert list(read_cases(table)["case_id"]) == list(broken["case_id"])


def test_a_harmonized_table_is_verified_without_another_search(busi, tmp_path, monkeypatch):
    for suffix in ("", "_mask"):
        shutil.copy(
            busi / f"benign/benign (1){suffix}.png", busi / f"benign/benign (4){suffix}.png"
        )
    table = tmp_path / "t.parquet"
    pairs = harmonize("busi", busi, table, tmp_path / "q.parquet", how=Harmonization(48))
    monkeypatch.setattr(leaks, "find_pairs", None)
    assert len(pairs) == 1 and inspect_tables("busi", [table]).pairs.equals(pairs)


def test_the_command_prints_writes_the_page_and_says_so(faulty_busi, tmp_path, capsys):
    page = tmp_path / "page"
    code = main(["verify", str(faulty_busi), "--collection", "busi", "--page", str(page)])
    said = capsys.readouterr().out
    assert code == 1 and "4 problem(s):" in said and str(page / "index.html") in said
    html = (page / "index.html").read_text()
    assert "label_conflict" in html and "data:image/png;base64," in html
    assert "<script" not in html and "http" not in html.replace("http-equiv", "")
    assert (page / "figures" / "distributions_busi-1.svg").stat().st_size > 3000
    assert "Images of one scene: " in html and "Left out: " in html
    assert html.count('class="pair"') > 0
    assert 'class="note"' in html


def test_a_sound_folder_exits_0(busi, tmp_path, capsys):
    page = tmp_path / "page"
    assert main(["verify", str(busi), "--collection", "busi", "--page", str(page)]) == 0
    html = (page / "index.html").read_text()
    assert "<p>No problem found.</p>" in html and 'class="note"' not in html
    assert "no problem found" in capsys.readouterr().out


def test_unknown_classes_contradict_nothing(tmp_path, draw):
    for stem in "ab":
        draw.save(tmp_path / "images" / f"{stem}.png", scene(1))
        draw.save(tmp_path / "masks" / f"{stem}.png", draw.disc(120, 150))
    table = tmp_path / "cases.parquet"
    found = inspect_raw("folder", tmp_path, table)
    assert len(found.pairs) == 1 and found.problems == []
    assert inspect_tables("own", [table]).problems == []


def test_annotated_terms_are_counted_in_words(breast, tmp_path):
    text = inspect_raw("breast", breast, tmp_path / "cases.parquet").text()
    assert "  posterior_features  annotated in 3 images" in text


def test_problems_of_a_kind_take_one_line(tmp_path, draw, capsys):
    draw.save(tmp_path / "images" / "a.png", scene(1))
    for number in range(12):
        draw.save(tmp_path / "masks" / f"z{number}.png", draw.disc())
        (tmp_path / "images" / f"q{number}.png").write_bytes(b"no picture")
    assert main(["verify", str(tmp_path), "--collection", "folder"]) == 1
    lines = capsys.readouterr().out.partition("24 problem(s):\n")[2].splitlines()
    assert len(lines) == 2
    assert all(line.startswith("12 x ") for line in lines)
    assert any(line.endswith(": masks/z0.png, masks/z1.png, masks/z10.png, ...") for line in lines)
    # What was left out is said, and where it is listed.
    out = tmp_path / "cases.parquet"
    assert main(["harmonize", "folder", str(tmp_path), "--out", str(out), "--size", "32"]) == 0
    *reasons, last = capsys.readouterr().out.splitlines()
    assert len(reasons) == 2
    assert last.startswith(f"{out}: 1 images, 24 left out, listed in {tmp_path}/cases_q")


def test_a_folder_of_tables_is_one_table(busi, bus_bra, tmp_path, capsys):
    for name, raw in (("busi", busi), ("bus_bra", bus_bra)):
        harmonize(
            name,
            raw,
            tmp_path / "cases" / f"{name}.parquet",
            tmp_path / "cases" / f"{name}_quarantine.parquet",
            how=Harmonization(32),
        )
    assert main(["verify", str(tmp_path / "cases")]) == 0
    assert f"{tmp_path / 'cases'}: 15 images" in capsys.readouterr().out
    splits = tmp_path / "splits.parquet"
    assert main(["split", str(tmp_path / "cases"), "--out", str(splits)]) == 0
    assert len(pd.read_parquet(splits)) == 15
    shutil.copy(tmp_path / "cases" / "busi.parquet", tmp_path / "cases" / "copy.parquet")
    assert main(["verify", str(tmp_path / "cases")]) == 1
    assert "9 x case_id occurs 2 times" in capsys.readouterr().out


@pytest.mark.parametrize("command", ["verify {}", "split {} --out splits.parquet"])
def test_raw_data_given_as_a_table(busi, command, capsys):
    assert main(command.format(busi).split()) == 1
    said = capsys.readouterr().err
    assert f"{busi}: a folder without case tables, found benign, malignant, normal" in said
    assert f"`stdiff verify {busi} --collection NAME`" in said and "delete" not in said
