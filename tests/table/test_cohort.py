"""Splits as `stdiff split` writes them, damaged."""

import pandas as pd
import pytest

from stdiff.cli.main import main
from stdiff.runtime.files import InputError
from stdiff.table.cohort import read_splits


@pytest.fixture
def splits(tables, tmp_path):
    path = tmp_path / "splits.parquet"
    assert main(["split", str(tables["cases"]), "--out", str(path)]) == 0
    return path


def test_a_flipped_bit_of_the_splits_is_refused_or_harmless(splits):
    # Of other columns the name could change: Parquet has check sums of pages, not of its footer.
    needed = ["case_id", "fold", "role", "label_rank"]
    whole, content = read_splits(splits)[needed], splits.read_bytes()
    refused = 0
    for place in range(0, len(content), 7):
        splits.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
        try:
            pd.testing.assert_frame_equal(read_splits(splits)[needed], whole)
        except InputError:
            refused += 1
    assert refused > 20


def test_splits_that_are_cut_short_are_refused_with_the_mend(splits):
    splits.write_bytes(splits.read_bytes()[:-9])
    with pytest.raises(
        InputError, match="not a readable Parquet file .*delete it and rerun the step"
    ):
        read_splits(splits)
