"""The table that a training leaves: a row a lesion, or one that says why it failed."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from stdiff.runtime.files import atomic_write, unreadable_table
from stdiff.table.cases import WRITING


def write_per_case(table: pd.DataFrame, path: Path) -> None:
    """Write it whole, with the check sums that :func:`read_per_case` looks at."""
    with atomic_write(path) as temporary:
        pq.write_table(pa.Table.from_pandas(table, preserve_index=False), temporary, **WRITING)


def read_per_case(path: Path) -> pd.DataFrame:
    """Read it.

    Raises:
        InputError: it is missing or damaged.
    """
    try:
        return pq.read_table(path, page_checksum_verification=True).to_pandas()
    except (pa.ArrowException, ValueError, OSError) as error:
        raise unreadable_table(Path(path), error) from error
