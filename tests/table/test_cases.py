"""The case table: what is written is read, elsewhere too, and every problem is found."""

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stdiff.birads.lexicon import MARGINS, VOCABULARY, Findings, render
from stdiff.runtime.files import InputError
from stdiff.table.cases import (
    SCHEMA,
    case_row,
    images_of,
    png_cell,
    read_cases,
    verify_table,
    write_cases,
)

SIDE_PX = 8
IMAGE = np.arange(SIDE_PX**2, dtype=np.uint8).reshape(SIDE_PX, SIDE_PX)
MASK = np.where(IMAGE > 40, 255, 0).astype(np.uint8)


def row(case_id="busi/benign-0001", findings=None, **other):
    findings = findings or Findings(
        pathology="benign", birads="3", shape="oval", margin=("indistinct", "angular")
    )
    values = {
        "case_id": case_id,
        "collection": "busi",
        "image": png_cell(IMAGE, "a"),
        "mask": png_cell(MASK, "a_mask"),
        "height_px": SIDE_PX,
        "width_px": SIDE_PX,
        **findings.as_row(),
        "caption": render(findings),
    }
    return case_row(**values | other)


def test_rows_have_every_column_and_no_other():
    assert list(row()) == SCHEMA.names
    with pytest.raises(TypeError, match="colour, size"):
        case_row(case_id="a", size=3, colour="red")


terms = {
    name: st.sampled_from([None, *VOCABULARY[name]]) for name in VOCABULARY if name != "margin"
}


@settings(max_examples=25, deadline=None)
@given(
    st.lists(
        st.builds(Findings, **terms, margin=st.sets(st.sampled_from(MARGINS)).map(tuple)),
        min_size=1,
        max_size=4,
    )
)
def test_what_is_written_is_read_and_sound(tmp_path_factory, many):
    path = tmp_path_factory.mktemp("cases") / "cases.parquet"
    rows = [row(f"busi/{i:04d}", findings) for i, findings in enumerate(many)]
    write_cases(rows, path)
    assert verify_table(path) == []
    found = read_cases(path)
    assert list(found.columns) == SCHEMA.names
    assert [Findings.from_row(r) for r in found.to_dict("records")] == many
    assert np.array_equal(images_of(found["image"]), np.stack([IMAGE] * len(many)))
    assert np.array_equal(images_of(found["mask"]), np.stack([MASK] * len(many)))


def test_tables_are_joined_in_the_order_given(tmp_path):
    for name in "ba":
        write_cases([row(name)], tmp_path / f"{name}.parquet")
    paths = [tmp_path / "b.parquet", tmp_path / "a.parquet"]
    assert list(read_cases(paths)["case_id"]) == ["b", "a"]
    assert list(read_cases(paths, ["width_px", "case_id"]).columns) == ["width_px", "case_id"]


def test_plain_pandas_and_pyarrow_open_it(tmp_path):
    path = tmp_path / "cases.parquet"
    write_cases([row(), row("busi/2", mask=None)], path)
    table = pq.read_table(path)
    assert table.schema.equals(SCHEMA)
    assert table.column("mask").to_pylist()[1] is None
    frame = pd.read_parquet(path)
    assert list(frame["margin"][0]) == ["indistinct", "angular"]
    assert frame["image"][0]["bytes"].startswith(b"\x89PNG")


def test_nothing_is_left_of_a_failed_write(tmp_path):
    with pytest.raises(pa.ArrowException):
        write_cases([row(height_px="tall")], tmp_path / "cases.parquet")
    assert list(tmp_path.iterdir()) == []


def _rewritten(path, change):
    pq.write_table(change(pq.read_table(path)), path)


def _replace(column, values, kind):
    def change(table):
        place = table.schema.get_field_index(column)
        return table.set_column(place, column, pa.array(values, kind))

    return change


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda t: t.drop_columns(["mask", "margin"]), r"column\(s\) mask, margin missing, found"),
        (_replace("height_px", ["tall"], pa.string()), "not of the type of a case table"),
        (_replace("case_id", [None], pa.string()), "case_id"),
    ],
)
def test_other_tables_are_refused(tmp_path, change, message):
    path = tmp_path / "cases.parquet"
    write_cases([row()], path)
    _rewritten(path, change)
    with pytest.raises(InputError, match=message) as error:
        read_cases(path)
    assert str(path) in str(error.value)


def test_a_column_not_asked_for_may_be_missing(tmp_path):
    path = tmp_path / "cases.parquet"
    write_cases([row()], path)
    _rewritten(path, lambda table: table.drop_columns(["mask"]))
    assert list(read_cases(path, ["case_id"])["case_id"]) == ["busi/benign-0001"]


def test_missing_and_foreign_files_are_refused(tmp_path):
    with pytest.raises(InputError, match=r"none\.parquet: no such case table"):
        read_cases(tmp_path / "none.parquet")
    (tmp_path / "text.parquet").write_text("case_id\n1\n")
    with pytest.raises(InputError, match=r"text\.parquet: not a readable Parquet file"):
        read_cases(tmp_path / "text.parquet")


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_damaged_tables_are_refused_or_read(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("damaged") / "cases.parquet"
    write_cases([row()], path)
    content = bytearray(path.read_bytes())
    place = data.draw(st.integers(0, len(content) - 1))
    if data.draw(st.booleans()):
        content = content[:place]
    else:
        content[place] ^= data.draw(st.integers(1, 255))
    path.write_bytes(content)
    try:
        found = read_cases(path)
    except InputError as error:
        assert str(path) in str(error)
    else:
        assert list(found.columns) == SCHEMA.names


@pytest.mark.parametrize(
    "changes, problem",
    [
        ({"image": {"bytes": b"\x89PNG", "path": "a"}}, "image cannot be decoded"),
        ({"mask": {"bytes": None, "path": "a"}}, "mask cannot be decoded"),
        ({"width_px": 9}, "image is (8, 8), the row says (8, 9)"),
        ({"mask": png_cell(MASK[:4], "a")}, "mask is (4, 8), the row says (8, 8)"),
        ({"mask": png_cell(MASK // 2, "a")}, "mask holds values other than 0 and 255"),
        (
            {"mask": png_cell(MASK | 255, "a")},
            "mask covers 100 % of the image and all",
        ),
        ({"mask": png_cell(MASK // 255, "a")}, "mask holds values other than 0 and 255"),
        ({"background": {"bytes": b"<svg/>", "path": "a"}}, "background cannot be decoded"),
        ({"image": None, "mask": None}, "neither image nor mask"),
        ({"shape": "square"}, "shape: 'square' is not a lexicon term"),
        ({"margin": ["fuzzy"]}, "margin: 'fuzzy' is not a lexicon term"),
        ({"caption": "BI-RADS 5"}, "caption 'BI-RADS 5' does not say what the row says"),
        ({"caption": None}, "does not say what the row says"),
        ({"pixel_spacing_mm": -0.1}, "pixel_spacing_mm is -0.1; expected millimetres"),
        ({"pixel_spacing_y_mm": -0.1}, "pixel_spacing_y_mm is -0.1; expected millimetres"),
        ({"pixel_spacing_mm": 0.0}, "pixel_spacing_mm is 0"),
        ({"pixel_spacing_mm": float("nan")}, "pixel_spacing_mm is nan"),
        ({"pixel_spacing_mm": float("inf")}, "pixel_spacing_mm is inf"),
        ({"measures": {"aspect": float("nan")}}, "measures.aspect is nan"),
        ({"transform": {"scale_x": float("-inf")}}, "transform.scale_x is -inf"),
        ({"lesion_count": 2}, "lesion_count is 2, but the mask shows 1"),
        ({"lesion_count": 0}, "lesion_count is 0, but the mask shows 1"),
        ({"lesion_count": -1, "flags": ["lesions_merged"]}, "lesion_count is -1"),
        ({"lesion_count": 1, "mask": png_cell(MASK * 0, "a")}, "is 1, but the mask shows 0"),
        ({"lesion_count": 1, "mask": None}, "there is no mask to count on"),
        ({"device": "=cmd|'/c calc'!A0"}, "device \"=cmd|'/c calc'!A0\" is a formula"),
        ({"histology": " ＠SUM(A1)"}, "is a formula in a spreadsheet"),
        ({"flags": ["colour", "+1"]}, "flags '+1' is a formula"),
    ],
)
def test_every_kind_of_problem_is_found(tmp_path, changes, problem):
    path = tmp_path / "cases.parquet"
    write_cases([row("good"), row("bad") | changes], path)
    problems = verify_table(path)
    assert problems and all(line.startswith("bad: ") for line in problems)
    assert any(problem in line for line in problems)


@pytest.mark.parametrize(
    ("case_id", "problem"),
    [
        ("", "case_id is empty"),
        (" \u3000", "case_id is empty"),
        ("busi/../../etc/x", "leads out of its folder"),
        ("..", "leads out of its folder"),
        ("a\\..\\b", "leads out of its folder"),
        ("/etc/passwd", "is an absolute path"),
        ("C:\\x", "is an absolute path"),
        ("a\nb", "control character"),
        ("a\0b", "control character"),
    ],
)
def test_ids_that_are_no_names_are_found_and_shown_on_one_line(tmp_path, case_id, problem):
    path = tmp_path / "cases.parquet"
    write_cases([row("busi/良性 (1).é"), row(case_id)], path)
    (found,) = verify_table(path)
    assert problem in found and not {"\n", "\0"} & set(found)


@pytest.mark.parametrize("count", [1, 3])
def test_lesions_that_merged_at_the_stored_size_contradict_nothing(tmp_path, count):
    path = tmp_path / "cases.parquet"
    write_cases([row(lesion_count=count, flags=["lesions_merged"])], path)
    assert verify_table(path) == []


def test_repeated_ids_and_several_problems_are_all_listed(tmp_path):
    path = tmp_path / "cases.parquet"
    write_cases([row("twice"), row("twice"), row("bad", width_px=9, caption="")], path)
    problems = verify_table(path)
    assert "twice: case_id occurs 2 times" in problems
    assert len([line for line in problems if line.startswith("bad: ")]) == 3


def test_a_bit_that_flips_in_the_data_is_found_by_the_check_sums(tmp_path):
    """Of the data itself, where nothing else could notice: bytes that are no PNG."""
    noise = np.random.default_rng(0).integers(0, 256, 5000, dtype=np.uint8).tobytes()
    path = tmp_path / "cases.parquet"
    write_cases([case_row(case_id="a", image={"bytes": noise, "path": "x.png"})], path)
    assert read_cases(path)["image"][0]["bytes"] == noise
    data = bytearray(path.read_bytes())
    data[data.index(noise[2000:2050])] ^= 1
    path.write_bytes(bytes(data))
    with pytest.raises(InputError, match="damaged"):
        read_cases(path)
