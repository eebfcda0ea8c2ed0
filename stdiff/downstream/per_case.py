"""The per-case table of a training: one row per held-out lesion, or one row if it failed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from stdiff.config.run import Config
from stdiff.runtime.files import atomic_write
from stdiff.table.cases import WRITING
from stdiff.table.cohort import Cohort
from stdiff.table.parquet import read_parquet

# Columns that identify a training, except for its repetition.
TRAINING = ["segmenter", "arm", "labels"]
# Columns of the table of a failed training.
FAILURE = [*TRAINING, "repetition", "reason"]


def held_out_lesions(config: Config, cohort: Cohort) -> dict[str, pd.DataFrame]:
    """Case rows of annotated lesions by role: ``test``, and ``validation`` if the run has any.

    Raises:
        InputError: a role has no lesion.
    """
    lesions = {"test": cohort.lesions()}
    if config.split.validation:
        lesions["validation"] = cohort.lesions("validation")
    return lesions


def per_case_rows(
    lesions: Mapping[str, pd.DataFrame],
    columns: list[str],
    training: Mapping[str, Any],
    measure: Callable[[str, pd.DataFrame], pd.DataFrame],
) -> pd.DataFrame:
    """One row per held-out lesion.

    Args:
        lesions: Case rows by role.
        columns: Columns of the case rows to keep.
        training: Further columns, equal in all rows.
        measure: From a role and its case rows to a table with one row per case.
    """
    parts = [
        pd.concat([rows[columns].assign(role=role, **training), measure(role, rows)], axis=1)
        for role, rows in lesions.items()
    ]
    return pd.concat(parts, ignore_index=True)


def write_per_case(table: pd.DataFrame, path: Path) -> None:
    """Write the table atomically, with the checksums that :func:`read_per_case` verifies."""
    with atomic_write(path) as temporary:
        pq.write_table(pa.Table.from_pandas(table, preserve_index=False), temporary, **WRITING)


def read_per_case(path: Path) -> pd.DataFrame:
    """Read a table written by :func:`write_per_case`.

    Raises:
        InputError: it is missing or damaged.
    """
    return read_parquet(path).to_pandas(ignore_metadata=True)
