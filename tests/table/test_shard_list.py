"""A corpus as a list of its shards."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from stdiff.cli.options import expand
from stdiff.runtime.files import InputError
from stdiff.table.cases import SCHEMA
from stdiff.table.shard_list import SHARD_LIST, tables_in, write_shard_list


def test_a_list_names_the_parts_in_their_order_and_is_read_as_arguments(tmp_path):
    for name in ("00000", "00001", "00001r1", "00002"):
        (tmp_path / f"{name}.parquet").touch()
    write_shard_list(tmp_path, ["00000", "00001", "00001r1"], tmp_path / "shards.txt")
    assert expand([f"@{tmp_path}/shards.txt"]) == [
        f"{tmp_path}/{name}.parquet" for name in ("00000", "00001", "00001r1")
    ]


def test_missing_shards_are_named_and_no_list_is_written(tmp_path):
    (tmp_path / "00001.parquet").touch()
    with pytest.raises(InputError, match=r"2 of 3 shards are missing.*, e.g. 00000.*00002"):
        write_shard_list(tmp_path, ["00000", "00001", "00002"], tmp_path / "shards.txt")
    assert not (tmp_path / "shards.txt").exists()


def test_the_tables_of_a_folder(tmp_path):
    for name in ("00001", "00000", ".00002.part"):
        pq.write_table(SCHEMA.empty_table(), tmp_path / f"{name}.parquet")
    pq.write_table(pa.table({"case_a": ["a"]}), tmp_path / "pairs.parquet")
    (tmp_path / "damaged.parquet").write_bytes(b"PAR1")
    first = tmp_path / "00000.parquet"
    assert tables_in(first) == [first]
    # Damage is not passed over.
    assert [table.stem for table in tables_in(tmp_path)] == ["00000", "00001", "damaged"]
    (tmp_path / SHARD_LIST).write_text("results/run/corpus/00001.parquet\n")
    assert tables_in(tmp_path) == [tmp_path / "00001.parquet"]
