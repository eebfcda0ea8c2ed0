"""Files of exported cases: letters kept, names apart on every file system, short enough."""

import unicodedata

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from small_tables import rows, write

from stdiff.export.export import LAYOUTS, export_cases
from stdiff.export.file_names import name_giver
from stdiff.export.selection import Choice


def names_of(*case_ids):
    return list(map(name_giver(case_ids), case_ids))


@pytest.mark.parametrize(
    ("case_id", "name"),
    [
        ("busi/benign-0001", "busi_benign-0001"),
        ("folder/良性 1", "folder_良性_1"),
        ("folder/हिन्दी", "folder_हिन्दी"),
        ("folder/e\u0301", "folder_\u00e9"),
        ("../a\0b\n", "_._a_b_"),
        ("", "_"),
    ],
)
def test_letters_are_kept_and_what_leads_elsewhere_is_not(case_id, name):
    assert names_of(case_id) == [name]


_LONG = "x" * 230


@given(st.lists(st.text(max_size=90), unique=True, max_size=6))
@example(["a/b", "a_b", "A_B", "a b"])
@example(["é", "e\u0301"])
@example([_LONG + "1", _LONG + "2", "良" * 80 + "1", "良" * 80 + "2"])
@example(["a", "A", *names_of("a", "A")])
@example([*names_of(_LONG), _LONG])
def test_no_two_cases_share_a_file(case_ids):
    names = names_of(*case_ids)
    alike = {unicodedata.normalize("NFC", name).casefold() for name in names}
    assert len(alike) == len(case_ids)
    assert all(0 < len(f"{name}_0000.png".encode()) < 250 for name in names)
    assert not any({"/", "\\", "\0", "\n"} & set(name) or name.startswith(".") for name in names)


def test_a_name_does_not_depend_on_the_order():
    forth, back = names_of("a/b", "a b", "c"), names_of("c", "a b", "a/b")
    assert forth == back[::-1] and forth[2] == "c"


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_writes_cases_whose_names_are_long_or_alike(tmp_path, layout):
    case_ids = ["folder/恶性", f"{_LONG}{'y' * 20}1", f"{_LONG}{'y' * 20}2", "a/b", "A_B"]
    table = [{**row, "case_id": name} for row, name in zip(rows(5), case_ids, strict=True)]
    to = tmp_path / "Dataset501_x"
    export_cases(Choice([write(table, tmp_path / "a.parquet")]), to, layout)
    if layout != "huggingface":
        assert len(list(to.rglob("*.png"))) == 10
