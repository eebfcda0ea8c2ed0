"""Reading case tables and shards of any size, at most 256 rows in memory at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from stdiff.table.accepted import is_accepted
from stdiff.table.cases import HINT, KIND, SCHEMA
from stdiff.table.parquet import open_parquet
from stdiff.table.verdicts import fill_verdicts, read_verdicts

_ROWS_AT_ONCE = 256


def open_table(path: Path) -> AbstractContextManager[pq.ParquetFile]:
    """A case table to read from, as it is stored (without the verdicts beside it).

    Raises:
        InputError: it is missing, no Parquet file, damaged where it is read, or no case table.
    """
    return open_parquet(path, kind=KIND, hint=HINT, columns=SCHEMA.names)


def iterate_rows(path: Path, columns: Sequence[str] | None = None) -> Iterator[dict[str, Any]]:
    """Rows of a table in order.

    Args:
        path: the table.
        columns: their names; ``image.path`` reads the path of ``image`` without its pixels, enough
            to see whether there is one.
    """
    with open_table(path) as file:
        judged = columns is None or "filter" in columns
        verdicts, first = read_verdicts(path) if judged else None, 0
        for batch in file.iter_batches(_ROWS_AT_ONCE, columns=columns):
            rows = fill_verdicts(pa.Table.from_batches([batch]), verdicts, first)
            yield from rows.to_pylist()
            first += len(rows)


def count_rows(paths: Sequence[Path]) -> list[int]:
    """Number of rows of each table; reads the footers only."""
    counts = []
    for path in paths:
        with open_table(path) as file:
            counts.append(file.metadata.num_rows)
    return counts


def spread_rows(
    paths: Sequence[Path], count: int, columns: Sequence[str]
) -> Iterator[dict[str, Any]]:
    """At most ``count`` rows, evenly spread over all tables, from the first row to the last.

    Tables that hold none of them are not read beyond their footer.
    """
    counts = count_rows(paths)
    total = sum(counts)
    chosen = set(evenly_spread(total, count).tolist())
    first = 0
    for path, rows in zip(paths, counts, strict=True):
        if chosen.intersection(range(first, first + rows)):
            for number, row in enumerate(iterate_rows(path, columns), start=first):
                if number in chosen:
                    yield row
        first += rows


def evenly_spread(total: int, count: int) -> np.ndarray:
    """Numbers of at most ``count`` of ``total`` rows, from the first to the last."""
    return np.linspace(0, total - 1, min(count, total)).round().astype(int)


def is_synthetic(row: dict[str, Any]) -> bool:
    """Whether a model made the image."""
    return row["model_sha256"] is not None or "synthetic" in (row["flags"] or ())


def is_rejected(row: dict[str, Any]) -> bool:
    """Whether the filter rejected the row; an unfiltered row is not rejected."""
    return not is_accepted(row["filter"])
