"""One reader of Parquet files: what it refuses, and what it says."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from stdiff.runtime.files import UnusableFile
from stdiff.table.parquet import open_parquet, read_parquet


@pytest.fixture
def path(tmp_path):
    table = pa.table({"a": [1, 2], "b": ["x", "y"]})
    pq.write_table(table, tmp_path / "t.parquet", write_page_checksum=True)
    return tmp_path / "t.parquet"


def test_columns_come_in_the_order_and_type_wanted(path):
    types = pa.schema([("a", pa.int32()), ("b", pa.string())])
    assert read_parquet(path).column_names == ["a", "b"]
    assert read_parquet(path, ["b", "a"]).column_names == ["b", "a"]
    assert read_parquet(path, types=types).schema.equals(types)
    with pytest.raises(UnusableFile, match="not of the type of a plan"):
        read_parquet(path, types=pa.schema([("b", pa.int32())]), kind="plan")


def test_messages_name_the_file_the_kind_and_the_mend(path, tmp_path):
    with pytest.raises(UnusableFile, match=r"none: no such plan; make it with `x`"):
        read_parquet(tmp_path / "none", kind="plan", hint="make it with `x`")
    with pytest.raises(UnusableFile, match=r"not a file: column\(s\) c missing, found a, b; rerun"):
        read_parquet(path, ["a", "c"])
    with (
        pytest.raises(UnusableFile, match="not a plan: found columns a, b"),
        open_parquet(path, kind="plan", schema=pa.schema([("a", pa.int64())])),
    ):
        pass
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(UnusableFile, match="not a readable Parquet file .*delete it"):
        read_parquet(path)
