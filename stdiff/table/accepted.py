"""The rows of a corpus that downstream steps use: those the filter accepted.

All rows of a table that was never filtered (real cases, a corpus from elsewhere) are used.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from stdiff.runtime.files import InputError, UnusableFile
from stdiff.table.cases import read_cases
from stdiff.table.shard_list import SHARD_LIST
from stdiff.table.verdicts import lacks_verdicts

# Columns that downstream steps select rows by.
LISTED = ["case_id", "sample_index", "pathology", "birads"]


@dataclass(frozen=True)
class FilterCount:
    """Numbers of generated, accepted and rejected images of a corpus."""

    made: int
    accepted: int
    rejected_for: dict[str, int]  # reason → images; one image may have several

    def __str__(self) -> str:
        reasons = ", ".join(f"{name} {count}" for name, count in self.rejected_for.items())
        return f"{self.accepted} of {self.made} accepted; rejected for {reasons or 'nothing'}"


def is_accepted(verdict: dict[str, Any] | None) -> bool:
    """Whether a row with this ``filter`` cell is used downstream."""
    return verdict is None or bool(verdict["accepted"])


def count_filtered(cells: Sequence[dict[str, Any] | None]) -> FilterCount:
    """Count the ``filter`` cells of a corpus; the most frequent reason first."""
    return FilterCount(
        made=len(cells),
        accepted=sum(map(is_accepted, cells)),
        rejected_for=_most_frequent_first(_reasons(cells)),
    )


@dataclass(frozen=True)
class Accepted:
    """The accepted images of a corpus; pixels are read by :meth:`rows` only."""

    listed: pd.DataFrame  # columns LISTED, number of the shard and row in it
    count: FilterCount
    shards: tuple[Path, ...]

    def rows(self, listed: pd.DataFrame) -> pd.DataFrame:
        """All columns of these listed rows, in their order; one shard is in memory at a time."""
        parts = []
        for shard, of_shard in listed.groupby("shard"):
            whole = read_cases(self.shards[shard])
            parts.append(whole.iloc[of_shard["row"]].set_index(of_shard.index))
        return pd.concat(parts).loc[listed.index].reset_index(drop=True)


def list_accepted(corpus: Sequence[Path]) -> Accepted:
    """The accepted images of a corpus, in the order of its shards.

    Raises:
        InputError: a table cannot be read, a case_id occurs twice, or no row is accepted.
    """
    _refuse_missing(corpus)
    made, reasons, parts, ids = 0, Counter(), [], []
    for number, path in enumerate(corpus):
        rows = read_cases(path, [*LISTED, "filter"])
        made, accepted = made + len(rows), rows["filter"].map(is_accepted).astype(bool)
        reasons.update(_reasons(rows["filter"]))
        ids.append(rows["case_id"])
        parts.append(
            rows[LISTED].assign(shard=number, row=range(len(rows))).loc[accepted.to_numpy()]
        )
    if not made:
        raise InputError(
            f"the corpus ({len(corpus)} files) holds no image; name the shards that `stdiff "
            "generate` or `stdiff filter apply` wrote"
        )
    _refuse_repeats(pd.concat(ids), corpus)
    listed = pd.concat(parts, ignore_index=True)
    count = FilterCount(made, len(listed), _most_frequent_first(reasons))
    if listed.empty:
        raise InputError(
            f"the filter accepted none of the corpus' {made} images (rejected for "
            + ", ".join(f"{reason}: {n}" for reason, n in count.rejected_for.items())
            + "); train the generator for longer, or switch off the scores that reject, e.g. "
            f"corpus: {{filter: {{{next(iter(count.rejected_for))}: null}}}}"
        )
    return Accepted(listed, count, tuple(corpus))


def _refuse_repeats(case_ids: pd.Series, corpus: Sequence[Path]) -> None:
    """Refuse copies: a corpus of repeated images looks larger than it is."""
    repeated = case_ids[case_ids.duplicated()]
    if len(repeated):
        raise InputError(
            f"{Path(corpus[0]).parent}: a case_id occurs twice in {len(repeated)} of "
            f"{len(case_ids)} rows, e.g. {repeated.iloc[0]}; name each shard once, or delete the "
            "folder and make the corpus again"
        )


def _refuse_missing(corpus: Sequence[Path]) -> None:
    """Refuse missing files, and name the list to delete: the workflow then makes them again."""
    absent = [Path(s) for s in corpus if not Path(s).is_file() or lacks_verdicts(s)]
    if not absent:
        return
    found = f"{len(absent)} shard(s) that are not there or not filtered, e.g. {absent[0].name}"
    shards = absent[0].parent / SHARD_LIST
    if shards.is_file():
        raise UnusableFile(f"{shards}: names {found}; delete it and run what makes it again")
    raise UnusableFile(
        f"{absent[0].parent}: has {found}; make them with `stdiff generate`, then `stdiff filter "
        "apply`"
    )


def _reasons(cells: Iterable[dict[str, Any] | None]) -> Counter[str]:
    return Counter(reason for cell in cells if cell is not None for reason in cell["reasons"])


def _most_frequent_first(reasons: Counter[str]) -> dict[str, int]:
    return dict(sorted(reasons.items(), key=lambda item: (-item[1], item[0])))
