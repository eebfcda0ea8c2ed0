"""Replacements of rejected images: the same masks and terms once more, with other noise.

A replacement has an index, id and seed of its own, drawn from the row it replaces alone: whatever
else is in the corpus, and however large it grows, it is the same image.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from stdiff.corpus.plan import MADE_COLUMNS
from stdiff.runtime.files import InputError
from stdiff.runtime.randomness import integer_seed
from stdiff.table.accepted import is_accepted
from stdiff.table.cases import read_rows, write_cases

# Row i of a plan is replaced by row i + this, that one by row i + twice this, and so on: no plan
# reaches it.
ROUND = 10**9


def plan_row_of(index: int) -> tuple[int, int]:
    """The plan's row that a row of a corpus is made of, and how often it was replaced."""
    return index % ROUND, index // ROUND


def replacement(row: dict[str, Any]) -> dict[str, Any]:
    """The planned row that replaces a row of a plan or corpus."""
    index = row["sample_index"] + ROUND
    return {
        **row,
        **dict.fromkeys(MADE_COLUMNS),
        "case_id": f"{row['collection']}/{index:08d}",
        "seed": integer_seed(row["seed"], "replacement", index),
        "sample_index": index,
    }


def planned_again(row: dict[str, Any], rounds: int) -> dict[str, Any]:
    """The plan's row after so many replacements."""
    for _ in range(rounds):
        row = replacement(row)
    return row


def write_replacements(shard: Path, out: Path) -> int:
    """Write the plan of the replacements of a judged shard's rejected rows; their number.

    Args:
        shard: as `stdiff filter apply` writes it, of planned rows or of replacements.
        out: a plan, without rows where all were accepted.

    Raises:
        InputError: no case table, or rows that were not judged or not planned.
    """
    rows = read_rows(shard)
    _refuse_unjudged(rows, shard)
    rejected = [row for row in rows if not is_accepted(row["filter"])]
    write_cases(map(replacement, rejected), out)
    return len(rejected)


def _refuse_unjudged(rows: Sequence[dict[str, Any]], shard: Path) -> None:
    if bad := [r["case_id"] for r in rows if r["filter"] is None or r["sample_index"] is None]:
        raise InputError(
            f"{shard}: {len(bad)} of {len(rows)} rows are no judged rows of a corpus "
            f"({', '.join(bad[:5])}); give a shard that `stdiff filter apply` wrote"
        )
