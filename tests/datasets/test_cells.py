"""What a cell means: numbers, missing values and terms as programs and people write them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stdiff.birads.lexicon import VOCABULARY
from stdiff.datasets.cells import look_alike, term_of, text_of, value_of
from stdiff.datasets.csv_tables import read_rows
from stdiff.runtime.files import InputError


@given(st.integers(0, 10**12), st.sampled_from(["", ".", ".0", ".00", ",0"]))
def test_whole_numbers_written_as_floats_are_one_number(number, ending):
    assert text_of(f" {number}{ending}\u00a0") == str(number)


@pytest.mark.parametrize(
    ("cell", "text"),
    [
        (7, "7"),
        (7.0, "7"),
        ("007.0", "007"),
        (0.08, "0.08"),
        ("0,08", "0,08"),
        ("1.50", "1.50"),
        ("e\u0301", "\u00e9"),
        ("\ufeffP\u00a01\u200b", "P 1"),
        (None, ""),
    ],
)
def test_text(cell, text):
    assert text_of(cell) == text


@pytest.mark.parametrize(
    "cell",
    [None, float("nan"), "", " ", "NaN", "NA", "N/A", "n/a", "null", "None", "<NA>", "#N/A", "-"]
    + ["?", "unknown", "Not available", "NOT APPLICABLE"],
)
def test_missing(cell):
    assert value_of(cell, "patient_id") == ""


def test_none_is_a_term_of_calcifications_alone():
    assert value_of("None", "calcifications") == "None"
    assert term_of("calcifications", "None") == "none"
    assert value_of("None", "shape") == ""


@given(st.data())
def test_terms_in_any_case(data):
    column = data.draw(st.sampled_from(list(VOCABULARY)))
    term = data.draw(st.sampled_from(VOCABULARY[column]))
    written = "".join(data.draw(st.sampled_from([c.lower(), c.upper()])) for c in term)
    assert term_of(column, written) == term


@pytest.mark.parametrize("cell", ["4a", "4 A", "BI-RADS 4A", "birads: 4a", "Bi-Rads4A"])
def test_birads(cell):
    assert term_of("birads", cell) == "4A"
    assert term_of("birads", "4D") is None


def test_ids_that_look_alike():
    assert look_alike("P 01") == look_alike("p1") == look_alike("P-001")
    assert len({look_alike(name) for name in ("P1", "P11", "1-11", "11-1", "Q1", "²1")}) == 6


def table(tmp_path, text):
    path = tmp_path / "t.csv"
    path.write_bytes(text.encode())
    return path


@pytest.mark.parametrize(
    "text",
    [
        "stem,patient_id\na,1\nb,1.0\n",
        "sep=;\nstem;patient_id\na;1\nb;1,0\n",
        '"sep=,"\r\nStem,Patient ID\r\na,1\r\nb,1.0\r\n',
        "stem\tPATIENT-ID\na\t1\nb\t 1.0 \n",
        ",stem,patient_id\n0,a,1\n1,b,1.0\n",
        "stem,Unnamed: 0,patient_id,,\na,17,1,,\nb,3,1.0,,\n",
        "\ufeffstem,patient_id\n\n,\na,1\nNaN,nan\nb,1.0\n",
    ],
)
def test_tables_as_spreadsheets_and_pandas_write_them(tmp_path, text):
    rows = read_rows(table(tmp_path, text), ("stem",), "stem", optional=("patient_id",))
    expected = {"a": "1", "b": "1"} | ({"NaN": ""} if "NaN" in text else {})
    assert {row["stem"]: row["patient_id"] for row in rows} == expected


def test_a_nameless_column_of_something_else_is_named_by_its_place(tmp_path):
    (row,) = read_rows(table(tmp_path, "stem,\na,benign\n"), ("stem",), "stem")
    assert row["without a name (number 2, e.g. 'benign')"] == "benign"


def test_a_column_in_its_own_spelling_is_not_taken_for_another(tmp_path):
    (row,) = read_rows(table(tmp_path, "ID,id,Case\na,1,x\n"), ("ID", "Case"), "ID")
    assert row == {"ID": "a", "id": "1", "Case": "x"}
    with pytest.raises(InputError, match="Case missing"):
        read_rows(table(tmp_path, "ID,Case2\na,1\n"), ("ID", "Case"), "ID")
