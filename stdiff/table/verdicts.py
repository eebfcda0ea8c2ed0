"""Verdicts of the quality filter, stored beside their shard so that its pixels are stored once.

``00000.filter.json`` holds the cells of the column ``filter`` for the rows of ``00000.parquet``.
The reading functions of :mod:`stdiff.table` fill them in.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from stdiff.runtime.errors import writing
from stdiff.runtime.files import UnusableFile, sha256_bytes, write_text

# Cells of the column ``filter``: the scores of stdiff.filtering.scores, and the verdict.
VERDICT = pa.struct(
    [
        ("mask_dice", pa.float32()),
        ("terms_met", pa.float32()),
        ("embedding_distance", pa.float32()),
        ("correlation", pa.float32()),
        ("saturated_fraction", pa.float32()),
        ("contrast_grey", pa.float32()),
        ("seam", pa.float32()),
        ("nearest_by_embedding", pa.string()),
        ("nearest_by_correlation", pa.string()),
        ("accepted", pa.bool_()),
        ("reasons", pa.list_(pa.string())),
    ]
)
# In a folder with this file every shard needs its verdicts: one that lost them must not pass for
# a shard that was never filtered.
FILTERED = ".filtered"
_AGAIN = "delete it and run `stdiff filter apply`, or the workflow, again"


def verdicts_path(shard: Path) -> Path:
    """Where the verdicts of a shard are stored."""
    return Path(shard).with_suffix(".filter.json")


def lacks_verdicts(shard: Path) -> bool:
    """Whether a shard of a filtered corpus has no verdicts (yet)."""
    return (Path(shard).parent / FILTERED).is_file() and not verdicts_path(shard).is_file()


def write_verdicts(shard: Path, cells: Sequence[dict[str, Any]]) -> None:
    """Write the ``filter`` cells of a shard's rows, in order."""
    found = {
        "shard_sha256": _footer_sha256(shard),
        "verdicts_sha256": _sha256(list(cells)),
        "verdicts": list(cells),
    }
    with writing(Path(shard).parent / FILTERED):
        (Path(shard).parent / FILTERED).touch()
    write_text(verdicts_path(shard), json.dumps(found, allow_nan=False) + "\n")


def read_verdicts(shard: Path) -> list[dict[str, Any]] | None:
    """The ``filter`` cells of a shard's rows; None where the corpus was not filtered.

    Raises:
        UnusableFile: they are missing from a filtered corpus, damaged, or of another shard.
    """
    path = verdicts_path(shard)
    if lacks_verdicts(shard):
        raise UnusableFile(
            f"{path}: no such file, but the corpus is filtered; make it with `stdiff filter apply`"
        )
    if not path.is_file():
        return None
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        verdicts, shard_sha256 = found["verdicts"], found["shard_sha256"]
        if _sha256(verdicts) != found["verdicts_sha256"]:
            raise ValueError("their SHA-256 differs")
    except (ValueError, KeyError, TypeError) as error:
        raise UnusableFile(f"{path}: damaged verdicts ({error}); {_AGAIN}") from error
    if shard_sha256 != _footer_sha256(shard):
        raise UnusableFile(
            f"{shard}: {path.name} was written for another version of this shard; if the shard is "
            "damaged, delete it and run what makes it again, else run `stdiff filter apply`"
        )
    return verdicts


def fill_verdicts(
    rows: pa.Table, verdicts: Sequence[dict[str, Any]] | None, first: int = 0
) -> pa.Table:
    """Rows ``first`` … of a shard with the column ``filter`` filled in, as far as they have it."""
    if verdicts is None or "filter" not in rows.column_names:
        return rows
    cells = pa.array(verdicts[first : first + len(rows)], VERDICT)
    return rows.set_column(rows.column_names.index("filter"), "filter", cells)


def _sha256(verdicts: list[dict[str, Any]]) -> str:
    # JSON writes a number the same way after it was read, so the text need not be kept.
    return sha256_bytes(json.dumps(verdicts).encode())


def _footer_sha256(shard: Path) -> str:
    """SHA-256 of a Parquet footer: row counts, sizes and extremes of every column.

    It differs for other rows or images, and takes no reading of the pixels.
    """
    with Path(shard).open("rb") as file:
        file.seek(-8, os.SEEK_END)
        length = int.from_bytes(file.read(4), "little")
        file.seek(-8 - length, os.SEEK_END)
        return sha256_bytes(file.read(length))
