import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from stdiff.runtime.files import InputError
from stdiff.table.cases import SCHEMA, case_row, png_cell, write_cases
from stdiff.table.streaming import (
    count_rows,
    is_rejected,
    is_synthetic,
    iterate_rows,
    open_table,
    spread_rows,
)

BLACK = png_cell(np.zeros((4, 4), np.uint8), "x")


@pytest.fixture
def tables(tmp_path):
    """Tables of 300, 0 and 41 rows; every third row has no image."""
    paths, number = [], 0
    for name, count in (("a", 300), ("b", 0), ("c", 41)):
        rows = []
        for _ in range(count):
            rows.append(case_row(case_id=f"{number}", image=None if number % 3 == 0 else BLACK))
            number += 1
        write_cases(rows, tmp_path / f"{name}.parquet")
        paths.append(tmp_path / f"{name}.parquet")
    return paths


def test_rows_come_in_order_and_pixels_only_where_asked_for(tables):
    assert count_rows(tables) == [300, 0, 41]
    light = list(iterate_rows(tables[0], ("case_id", "image.path", "filter")))
    assert [row["case_id"] for row in light] == [str(i) for i in range(300)]
    assert [row["image"] is None for row in light] == [i % 3 == 0 for i in range(300)]
    assert light[1]["image"] == {"path": "x.png"}
    assert next(iter(list(iterate_rows(tables[2]))))["case_id"] == "300"


def test_a_spread_goes_from_the_first_row_to_the_last(tables):
    def ids(count):
        return [int(row["case_id"]) for row in spread_rows(tables, count, ("case_id",))]

    assert ids(1) == [0]
    assert ids(2) == [0, 340]
    assert ids(341) == ids(1000) == list(range(341))
    steps = np.diff(ids(18))
    assert steps.min() == steps.max() == 20
    assert list(spread_rows([], 5, ("case_id",))) == []


def test_what_is_no_case_table_is_refused(tmp_path):
    pq.write_table(pa.table({"case_id": ["a"]}), tmp_path / "other.parquet")
    (tmp_path / "text.parquet").write_text("text")
    for name, said in (
        ("none.parquet", "no such case table"),
        ("text.parquet", "not a readable Parquet file"),
        ("other.parquet", r"column\(s\) collection, .* missing"),
    ):
        with pytest.raises(InputError, match=said), open_table(tmp_path / name):
            pass


def test_a_table_of_an_earlier_version_is_refused_with_what_it_lacks(tmp_path):
    names = [name for name in SCHEMA.names if name != "filter"]
    schema = pa.schema([SCHEMA.field(name) for name in names])
    row = {name: None for name in names} | {"case_id": "a"}
    pq.write_table(pa.Table.from_pylist([row], schema=schema), tmp_path / "a.parquet")
    with pytest.raises(InputError, match=r"column\(s\) filter missing"):
        list(iterate_rows(tmp_path / "a.parquet", ("case_id",)))


def test_who_made_and_who_rejected_a_row():
    assert is_synthetic({"model_sha256": "a", "flags": None})
    assert is_synthetic({"model_sha256": None, "flags": ["synthetic"]})
    assert not is_synthetic({"model_sha256": None, "flags": ["colour"]})
    assert is_rejected({"filter": {"accepted": False}})
    assert not is_rejected({"filter": {"accepted": True}})
    assert not is_rejected({"filter": None})
