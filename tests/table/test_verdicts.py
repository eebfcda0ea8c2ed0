"""Verdicts beside their shard: every reader sees them, and stale or lost ones are refused."""

import json
import shutil

import pytest
from small_tables import rows, write

from stdiff.export.selection import Choice
from stdiff.runtime.files import InputError
from stdiff.table.accepted import list_accepted
from stdiff.table.cases import SCHEMA, read_cases, read_rows
from stdiff.table.shard_list import SHARD_LIST, write_shard_list
from stdiff.table.streaming import iterate_rows, spread_rows
from stdiff.table.verdicts import VERDICT, read_verdicts, verdicts_path, write_verdicts

REJECTED = (1, 4)


def cells(count=6, rejected=REJECTED):
    empty = dict.fromkeys(VERDICT.names)
    return [
        {
            **empty,
            "seam": i / 4,
            "accepted": i not in rejected,
            "reasons": ["seam"][: i in rejected],
        }
        for i in range(count)
    ]


@pytest.fixture
def shard(tmp_path):
    path = write(rows(), tmp_path / "00000.parquet")
    write_verdicts(path, cells())
    return path


def test_every_reader_sees_the_verdicts(shard):
    assert SCHEMA.field("filter").type == VERDICT
    assert [r["filter"] for r in read_rows(shard)] == cells()
    assert list(read_cases([shard], ["filter"])["filter"].map(lambda c: c["seam"])) == [
        i / 4 for i in range(6)
    ]
    assert [r["filter"] for r in iterate_rows(shard, ("case_id", "filter"))] == cells()
    assert [r["filter"]["seam"] for r in spread_rows([shard], 2, ("filter",))] == [0, 1.25]
    assert list_accepted([shard]).count.rejected_for == {"seam": 2}
    assert [case.stem[-1] for case in Choice([shard]).cases()] == list("0235")


def test_rows_longer_than_a_batch_keep_their_own_verdicts(tmp_path, monkeypatch):
    monkeypatch.setattr("stdiff.table.streaming._ROWS_AT_ONCE", 4)
    path = write(rows(), tmp_path / "00000.parquet")
    write_verdicts(path, cells())
    assert [r["filter"] for r in iterate_rows(path)] == cells()


def test_verdicts_of_another_shard_are_refused(shard, tmp_path):
    other = write(rows(collection="other"), tmp_path / "00001.parquet")
    shutil.copy(verdicts_path(shard), verdicts_path(other))
    for read in (read_rows, lambda p: list(iterate_rows(p)), lambda p: list_accepted([p])):
        with pytest.raises(InputError, match=r"00001\.parquet: .*another version of this shard"):
            read(other)


def test_lost_verdicts_are_not_taken_for_an_unfiltered_corpus(shard, tmp_path):
    verdicts_path(shard).unlink()
    with pytest.raises(InputError, match=r"00000\.filter\.json: no such file.*filter apply"):
        read_rows(shard)
    with pytest.raises(InputError, match="not filtered, e.g. 00000.parquet"):
        list_accepted([shard])
    with pytest.raises(InputError, match="missing or not filtered, e.g. 00000"):
        write_shard_list(tmp_path, ["00000"], tmp_path / SHARD_LIST)
    (tmp_path / SHARD_LIST).write_text("")
    with pytest.raises(InputError, match=rf"{SHARD_LIST}: names 1 .*delete it"):
        list_accepted([shard])


def test_a_flipped_bit_of_the_verdicts_is_refused_or_changes_nothing(shard):
    content = verdicts_path(shard).read_bytes()
    refused = 0
    for place in range(0, len(content), 5):
        flipped = content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :]
        verdicts_path(shard).write_bytes(flipped)
        try:
            assert read_verdicts(shard) == cells()
        except InputError:
            refused += 1
    assert refused > len(content) / 5 * 0.9


def test_verdicts_are_plain_json(shard):
    found = json.loads(verdicts_path(shard).read_text())
    assert found["verdicts"][1]["reasons"] == ["seam"]
