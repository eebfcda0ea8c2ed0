"""Replacements of rejected images: the same masks and terms, generated again from another seed.

Index, id and seed of a replacement depend only on the row it replaces, so it is the same image
whatever else is in the corpus, and however large the corpus grows.
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

# Row i is replaced by row i + ROUND, which is replaced by row i + 2 ROUND, and so on. Plans are
# shorter than ROUND.
ROUND = 10**9


def plan_row_of(index: int) -> tuple[int, int]:
    """(row of the plan, number of replacements) of a row of a corpus."""
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
    """A row of the plan after this many replacements."""
    for _ in range(rounds):
        row = replacement(row)
    return row


def write_replacements(shard: Path, out: Path) -> int:
    """Plan a replacement for each rejected row of a filtered shard; return their number.

    Args:
        shard: a shard of planned rows or of replacements, with its verdicts.
        out: plan to write; it has no rows if all images were accepted.

    Raises:
        InputError: no case table, or rows without a verdict or without an index in the plan.
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
            f"({', '.join(bad[:5])}); run `stdiff filter apply` on this shard first"
        )
