import io
import itertools
import random
from functools import partial
from typing import get_args

import pytest
from killing import killed_before
from PIL import Image
from small_tables import judged, rows, write, write_splits

from stdiff.cli.main import main
from stdiff.cli.options import Layout
from stdiff.export.export import LAYOUTS, export_cases
from stdiff.export.selection import Choice
from stdiff.runtime.files import InputError
from stdiff.runtime.images import decode_png, encode_png

# A name that every layout takes.
NAME = "Dataset501_Small"


def test_the_command_line_knows_every_layout():
    assert set(get_args(Layout)) == set(LAYOUTS)


def chosen(*tables, **options):
    return [(case.row["case_id"], case.role) for case in Choice(tables, **options).cases()]


def test_rejected_cases_are_left_out_and_those_not_gated_are_not(tmp_path):
    table = rows(5)
    table[1], table[3] = judged(table[1]), judged(table[3], "mask_dice", "seam")
    path = write(table, tmp_path / "a.parquet")
    assert [name[-1] for name, _ in chosen(path)] == list("0124")
    assert [name[-1] for name, _ in chosen(path, rejected_too=True)] == list("01234")
    accepted = [case.accepted for case in Choice([path], rejected_too=True).cases()]
    assert accepted == [None, True, None, False, None]


def test_splits_part_real_cases_and_leave_synthetic_ones_to_training(tmp_path):
    real = write(rows(3, "busi", synthetic=False), tmp_path / "real.parquet")
    made = write(rows(2), tmp_path / "made.parquet")
    roles = {f"busi/{i:08d}": role for i, role in enumerate(("train", "validation", "test"))}
    # Nobody can make a synthetic case a test case.
    splits = write_splits(roles | {"syn/00000000": "test"}, tmp_path / "splits.parquet")
    assert [role for _, role in chosen(real, made)] == ["train"] * 5
    found = [role for _, role in chosen(real, made, splits=splits)]
    assert found == ["train", "validation", "test", "train", "train"]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_all_problems_are_told_at_once_and_nothing_is_written(tmp_path, layout):
    table = rows(4, first_unlabelled=True)
    table += [table[2], {**table[1], "image": None, "case_id": "x"}]
    table += [{**row, "collection": "busi"} for row in rows(1, "busi", synthetic=False)]
    path = write(table, tmp_path / "a.parquet")
    splits = write_splits({"busi/other": "train"}, tmp_path / "splits.parquet")
    before = sorted(tmp_path.iterdir())
    with pytest.raises(InputError) as told:
        export_cases(Choice([path], splits=splits), tmp_path, layout)
    said = str(told.value)
    assert "already holds something" in said
    assert "1 case ids occur more than once: 'syn/00000002' (2 times)" in said
    assert "1 of 7 cases are real and not in" in said
    labels_needed = layout in ("nnunet", "monai")
    assert ("1 of 7 cases have no mask (syn/00000000)" in said) == labels_needed
    assert ("--labelled-only" in said) == labels_needed
    assert ("1 of 7 cases have no image (x)" in said) == labels_needed
    assert ("DatasetNNN_Name" in said) == (layout == "nnunet")
    assert sorted(tmp_path.iterdir()) == before


def test_what_the_message_says_mends_it(tmp_path):
    path = write(rows(4, first_unlabelled=True), tmp_path / "a.parquet")
    export = ["export", str(path), "--as", "nnunet", "--to", str(tmp_path / NAME)]
    assert main(export) == 1
    assert main([*export, "--labelled-only"]) == 0
    assert len(list((tmp_path / NAME / "labelsTr").iterdir())) == 3


def test_real_and_synthetic_cases_together_need_splits(tmp_path, capsys):
    """Without them, the run's test cases would be trained on."""
    run = tmp_path / "run"
    (run / "cases").mkdir(parents=True)
    (run / "corpus").mkdir()
    real = write(rows(3, "busi", synthetic=False), run / "cases" / "busi.parquet")
    made = write(rows(2), run / "corpus" / "0.parquet")
    export = ["export", str(real), str(made), "--to", str(tmp_path / "out")]
    assert main(export) == 1
    said = capsys.readouterr().err
    assert "3 real and 2 synthetic cases without --splits" in said
    assert "`stdiff split`" in said and not (tmp_path / "out").exists()
    roles = {f"busi/{i:08d}": role for i, role in enumerate(("train", "validation", "test"))}
    splits = write_splits(roles, run / "splits.parquet")
    assert main(export) == 1
    assert f"add --splits {splits}, or" in capsys.readouterr().err
    assert main([*export, "--splits", str(splits)]) == 0
    assert "5 cases as folders." in capsys.readouterr().out
    for name, table in (("real", real), ("made", made)):
        assert main(["export", str(table), "--to", str(tmp_path / name)]) == 0


@pytest.mark.parametrize("layout", LAYOUTS)
def test_an_export_says_how_many_cases_it_leaves_out(tmp_path, layout, capsys):
    table = rows(7, first_unlabelled=True)
    table[2], table[4] = judged(table[2], "seam"), judged(table[4], "mask_dice")
    path, out = write(table, tmp_path / "a.parquet"), tmp_path / NAME
    command = ["export", str(path), "--as", layout, "--to", str(out), "--labelled-only"]
    assert main(command) == 0
    said = "Left out: 2 that the filter rejected and 1 without a mask."
    assert f"4 cases as {layout}. {said}" in capsys.readouterr().out
    texts = [file.read_text() for file in out.iterdir() if file.suffix in (".txt", ".md", ".json")]
    assert any(said in text for text in texts)
    assert Choice([path], rejected_too=True).left_out == ""


def with_cell(row, column, encode):
    """The row with a cell of pixels encoded in another way."""
    levels_HW = decode_png(row[column]["bytes"])
    return {**row, column: {"bytes": encode(levels_HW), "path": "x.png"}}


def as_0_and_1(mask_HW):
    return encode_png(mask_HW // 255)


def as_jpeg(grey_HW):
    return _saved(Image.fromarray(grey_HW), "JPEG")


def as_tiff(grey_HW):
    return _saved(Image.fromarray(grey_HW).convert("CMYK"), "TIFF")


def _saved(image, form):
    buffer = io.BytesIO()
    image.save(buffer, format=form)
    return buffer.getvalue()


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda table: table + table[:1], "occur more than once"),
        (lambda table: [], "nothing to export"),
        (lambda table: [judged(row, "seam") for row in table], "filter rejected 6"),
        (
            lambda table: [*table[:-1], {**table[-1], "image": {"bytes": None, "path": "x.png"}}],
            "image cannot be decoded",
        ),
        (lambda table: [*table[:-1], with_cell(table[-1], "image", as_jpeg)], "not PNG"),
        (lambda table: [*table[:-1], with_cell(table[-1], "mask", as_tiff)], "not PNG"),
        (
            lambda table: [*table[:-1], with_cell(table[-1], "mask", as_0_and_1)],
            "mask holds values other than 0 and 255, for example 1",
        ),
        (
            lambda table: [*table[:-1], {**table[-1], "width_px": 9}],
            r"image is \(16, 16\), the row says \(16, 9\)",
        ),
    ],
)
def test_a_failed_export_leaves_nothing(tmp_path, layout, spoil, said):
    path = write(spoil(rows()), tmp_path / "a.parquet")
    with pytest.raises(InputError, match=said):
        export_cases(Choice([path]), tmp_path / NAME, layout)
    assert list(tmp_path.iterdir()) == [path]


def test_what_is_no_case_table_is_refused_all_of_them(tmp_path):
    (tmp_path / "text.parquet").write_text("text")
    splits = write_splits({"a": "train"}, tmp_path / "splits.parquet")
    bad = [tmp_path / "text.parquet", tmp_path / "none.parquet", splits]
    with pytest.raises(InputError) as told:
        export_cases(Choice(bad), tmp_path / "out")
    for said in ("3 problems", "not a readable Parquet", "no such case table", "not a case table"):
        assert said in str(told.value)
    assert not (tmp_path / "out").exists()


def test_a_damaged_table_is_found_before_or_while_it_is_written(tmp_path):
    path = write(rows(40), tmp_path / "a.parquet")
    whole, draw = path.read_bytes(), random.Random(0)
    failed = 0
    for attempt in range(30):
        damaged = bytearray(whole)
        position = draw.randrange(len(whole))
        damaged[position : position + 40] = bytes(40)
        path.write_bytes(damaged)
        try:
            export_cases(Choice([path]), tmp_path / f"out{attempt}")
        except InputError:
            failed += 1
            assert not list(tmp_path.glob(".out*")) and not (tmp_path / f"out{attempt}").exists()
    assert failed > 5


def test_an_export_killed_at_any_step_is_absent_or_whole(tmp_path):
    table = write(rows(3), tmp_path / "a.parquet")
    for step in itertools.count(1):
        out = tmp_path / f"{step}" / "Dataset001_x"
        killed = killed_before(step, partial(export_cases, Choice([table]), out, "nnunet"))
        if out.exists():
            assert (out / "dataset.json").is_file()
            assert len(list((out / "labelsTr").iterdir())) == 3
        if not killed:
            break
    assert out.exists() and step > 10
