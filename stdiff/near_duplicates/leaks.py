"""Cases that no split may separate: one patient's, near-duplicates, crops and their frames.

The search reads case tables only: `stdiff harmonize` stores a fingerprint of every native frame. It
also keeps the pairs within a table in a file beside it, so later steps search only across tables.
A pair depends on its two images alone, so pairs within and across tables equal those of one search
over all rows. Only the similarity of hashes, which ranks candidates, comes from a matrix product
whose last digit may vary with the other rows.
"""

from __future__ import annotations

import hashlib
from collections.abc import Hashable, Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from stdiff.near_duplicates.crops import crop_pairs
from stdiff.near_duplicates.duplicates import duplicate_pairs, joined
from stdiff.near_duplicates.fingerprint import fingerprint_array
from stdiff.runtime.files import atomic_write
from stdiff.table.cases import WRITING
from stdiff.table.parquet import open_parquet

# What the search reads of a case table.
COLUMNS = (
    *("case_id", "collection", "pathology", "patient_id", "group_id"),
    *("flags", "fingerprint", "transform"),
)
PAIR_SCHEMA = pa.schema(
    [
        ("case_a", pa.string()),
        ("case_b", pa.string()),
        # "frame": both show the whole frame; "crop": one shows a part of the other; "lesion crop":
        # case_a is a lesion cut out of case_b.
        ("kind", pa.string()),
        ("correlation", pa.float32()),
    ]
)
CROP_FLAG = "lesion_crop"
# Metadata of a file of kept pairs: digest of the images that were searched.
_SEARCHED = b"searched"


def find_pairs(
    cases: pd.DataFrame, processes: int = 1, part: np.ndarray | None = None
) -> pd.DataFrame:
    """Pairs of cases that show one scene, sorted; columns as :data:`PAIR_SCHEMA`.

    Args:
        cases: rows with the columns :data:`COLUMNS`; one without a fingerprint matches nothing.
        processes: worker processes; the result does not depend on it.
        part: (N,) part of each row; if given, only pairs of different parts are searched.
    """
    rows = cases.assign(part=np.arange(len(cases)) if part is None else part)
    rows = rows[rows["fingerprint"].notna()].sort_values("case_id")
    is_crop = np.array([CROP_FLAG in flags for flags in rows["flags"]], dtype=bool)
    crops, frames = rows[is_crop], rows[~is_crop]
    found = []
    for alike in (frames, crops):
        prints = fingerprint_array(alike["fingerprint"].to_list())
        pairs = duplicate_pairs(prints, processes, alike["part"].to_numpy())
        found.append(_named(pairs, alike, "i", alike, "j"))
    parts = crops["part"].to_numpy(), frames["part"].to_numpy()
    pairs = crop_pairs(*_with_native_sizes(crops), *_with_native_sizes(frames), processes, parts)
    found.append(_named(pairs.assign(kind="lesion crop"), crops, "crop", frames, "frame"))
    return _sorted(found)


def pairs_of_tables(
    tables: Sequence[Path], cases: pd.DataFrame, processes: int = 1
) -> pd.DataFrame:
    """What :func:`find_pairs` gives for all tables, by a search across tables only.

    Pairs within a table are those kept beside it; they are searched where none are kept, or where
    other images were searched for them.

    Args:
        tables: case tables.
        cases: their rows in this order, with the columns :data:`COLUMNS`.
        processes: worker processes; the result does not depend on it.
    """
    lengths = [pq.read_metadata(table).num_rows for table in tables]
    table_of_row = np.repeat(np.arange(len(tables)), lengths)
    found = []
    for number, table in enumerate(tables):
        rows = cases[table_of_row == number]
        kept = _kept_pairs(table, rows)
        found.append(find_pairs(rows, processes) if kept is None else kept)
    if len(tables) > 1:
        found.append(find_pairs(cases, processes, table_of_row))
    return _sorted(found)


def pairs_path(table: Path) -> Path:
    """File beside a case table that keeps the pairs within it: ``busi_pairs.parquet``."""
    return table.with_name(f"{table.stem}_pairs.parquet")


def keep_pairs(pairs: pd.DataFrame, cases: pd.DataFrame, table: Path) -> None:
    """Write the pairs that were found among the cases of a table beside it."""
    write_pairs(pairs, pairs_path(table), {_SEARCHED: _digest(cases)})


def write_pairs(
    pairs: pd.DataFrame, path: Path, metadata: dict[bytes, bytes] | None = None
) -> None:
    """Write pairs with the columns :data:`PAIR_SCHEMA` as a Parquet file."""
    table = pa.Table.from_pandas(pairs, PAIR_SCHEMA, preserve_index=False)
    with atomic_write(path) as temporary:
        pq.write_table(
            table.replace_schema_metadata({**table.schema.metadata, **(metadata or {})}),
            temporary,
            **WRITING,
        )


def _kept_pairs(table: Path, cases: pd.DataFrame) -> pd.DataFrame | None:
    """Pairs kept beside a table; None if there are none, or if its images are others by now."""
    path = pairs_path(table)
    if not path.is_file():
        return None
    with open_parquet(path) as file:
        kept = file.read()
    searched = (kept.schema.metadata or {}).get(_SEARCHED)
    return kept.to_pandas() if searched == _digest(cases) else None


def _digest(cases: pd.DataFrame) -> bytes:
    """Digest of everything that the search reads of the cases."""
    digest = hashlib.sha256()
    for row in cases[cases["fingerprint"].notna()].sort_values("case_id").itertuples():
        digest.update(repr((row.case_id, CROP_FLAG in row.flags, row.transform)).encode())
        digest.update(row.fingerprint)
    return digest.hexdigest().encode()


def _sorted(found: Sequence[pd.DataFrame]) -> pd.DataFrame:
    types = {"case_a": object, "case_b": object, "correlation": np.float32}
    pairs = pd.concat(found, ignore_index=True).astype(types)
    return pairs.sort_values(["case_a", "case_b"], ignore_index=True)


def clusters_of(cases: pd.DataFrame, pairs: pd.DataFrame) -> np.ndarray:
    """(N,) int cluster of each row; rows that pairs link, directly or not, share one."""
    row_of = {case_id: row for row, case_id in enumerate(cases["case_id"])}
    links = [(row_of[a], row_of[b]) for a, b in zip(pairs["case_a"], pairs["case_b"], strict=True)]
    return joined(len(cases), np.array(links, dtype=int).reshape(-1, 2))


def group_ids(cases: pd.DataFrame, clusters: np.ndarray, named_by: str = "case_id") -> np.ndarray:
    """(N,) name of each row's group: the union of table groups, patients and clusters.

    The name is the smallest value of the column ``named_by`` in the group.
    """
    # Patient numbers are unique within a collection only.
    patients = [
        (collection, patient) if isinstance(patient, str) else None
        for collection, patient in zip(cases["collection"], cases["patient_id"], strict=True)
    ]
    links = [
        link for keys in (cases["group_id"], patients, clusters) for link in _links_to_first(keys)
    ]
    component = pd.Series(joined(len(cases), np.array(links).reshape(-1, 2)), index=cases.index)
    return cases[named_by].groupby(component).transform("min").to_numpy()


def label_conflicts(pathology: pd.Series, clusters: np.ndarray) -> np.ndarray:
    """(N,) bool, True where images of one scene carry more than one pathology."""
    return (pathology.groupby(clusters).transform("nunique") > 1).to_numpy()


def _with_native_sizes(cases: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """Fingerprints (N, side, side) and native (height, width) in pixels (N, 2)."""
    native = [
        (cell["native_height_px"], cell["native_width_px"]) for cell in cases["transform"].to_list()
    ]
    fingerprints = fingerprint_array(cases["fingerprint"].to_list())
    return fingerprints, np.array(native, dtype=int).reshape(-1, 2)


def _named(
    pairs: pd.DataFrame, first: pd.DataFrame, first_row: str, second: pd.DataFrame, second_row: str
) -> pd.DataFrame:
    """Pairs of row numbers as pairs of case ids."""
    return pd.DataFrame(
        {
            "case_a": first["case_id"].to_numpy()[pairs[first_row]],
            "case_b": second["case_id"].to_numpy()[pairs[second_row]],
            "kind": pairs["kind"],
            "correlation": pairs["correlation"],
        }
    )


def _links_to_first(keys: Iterable[Hashable]) -> Iterator[tuple[int, int]]:
    """Links each row to the first one of the same key; a missing key links nothing."""
    first: dict[Hashable, int] = {}
    for row, key in enumerate(keys):
        if key is not None:
            yield row, first.setdefault(key, row)
