"""The table of a training says when it is damaged."""

import pandas as pd
import pytest

from stdiff.downstream.per_case import read_per_case, write_per_case
from stdiff.runtime.files import InputError


@pytest.fixture
def table():
    return pd.DataFrame(
        {"case_id": [f"busi/{i}" for i in range(300)], "dice": 0.5, "repetition": 3}
    )


def test_it_comes_back_as_it_was(table, tmp_path):
    write_per_case(table, tmp_path / "t.parquet")
    assert read_per_case(tmp_path / "t.parquet").equals(table)


def test_damage_is_seen(table, tmp_path):
    path = tmp_path / "t.parquet"
    write_per_case(table, path)
    whole = path.read_bytes()
    for content in (whole[:-9], whole[:200] + bytes([whole[200] ^ 1]) + whole[201:]):
        path.write_bytes(content)
        with pytest.raises(InputError, match=r"t\.parquet: .* delete it and rerun the step"):
            read_per_case(path)
    path.unlink()
    with pytest.raises(InputError, match="t.parquet"):
        read_per_case(path)
