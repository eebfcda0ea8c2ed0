"""The table that a training leaves: a row a lesion, or one that says why it failed."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from stdiff.runtime.files import atomic_write
from stdiff.table.cases import WRITING
from stdiff.table.parquet import read_parquet


def write_per_case(table: pd.DataFrame, path: Path) -> None:
    """Write it whole, with the check sums that :func:`read_per_case` looks at."""
    with atomic_write(path) as temporary:
        pq.write_table(pa.Table.from_pandas(table, preserve_index=False), temporary, **WRITING)


def read_per_case(path: Path) -> pd.DataFrame:
    """Read it.

    Raises:
        InputError: it is missing or damaged.
    """
    return read_parquet(path).to_pandas(ignore_metadata=True)
