"""Test folds of a cross-validation: drawn by group, or as a collection publishes them."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from stdiff.datasets import bus_bra
from stdiff.datasets.csv_tables import read_rows
from stdiff.runtime.files import InputError
from stdiff.runtime.randomness import integer_seed

_LISTED = 5


def draw_folds(
    groups: pd.DataFrame, seed: int, folds: int, given: pd.Series | None = None
) -> pd.Series:
    """Test fold of each group that may be held out, 0 ... folds - 1, by group_id.

    In the order of its hash, each group goes to the fold with the fewest cases of its stratum and
    lesion size so far, then the fewest of its stratum. A given fold is kept.

    Args:
        groups: by group_id, with the columns ``stratum``, ``tercile``, ``size`` (cases) and
            ``may_be_held_out``.
        seed: of the run.
        folds: number of folds.
        given: published fold by group_id, for the groups that have one.

    Raises:
        InputError: ``folds`` differs from the number of published folds.
    """
    if given is not None and given.max() != folds - 1:
        raise InputError(
            f"folds: {folds}, but {int(given.max()) + 1} are published; give that number, or leave "
            "folds out"
        )
    given = given if given is not None else pd.Series(dtype=int)
    free = groups[groups["may_be_held_out"]]
    fold_of = {group: int(given[group]) for group in free.index if group in given.index}
    for name, stratum in free.groupby("stratum"):
        # The first fold of a stratum is drawn too; otherwise small strata would all fill fold 0.
        first = integer_seed(seed, f"first fold {name}") % folds
        of_stratum = [0] * folds
        for _, sized in stratum.groupby("tercile"):
            of_size = [0] * folds
            for group in sized.index[sized.index.isin(fold_of)]:
                of_size[fold_of[group]] += int(sized["size"][group])
            for group in _by_hash(sized.index.difference(given.index), seed):
                fold = _emptiest(of_size, of_stratum, first)
                fold_of[group] = fold
                of_size[fold] += int(sized["size"][group])
            of_stratum = [a + b for a, b in zip(of_stratum, of_size, strict=True)]
    return pd.Series(fold_of, dtype=int).reindex(free.index)


def _emptiest(of_size: list[int], of_stratum: list[int], first: int) -> int:
    """Fold with fewest cases of the size, then of the stratum; ties go round from ``first``."""
    count = len(of_size)
    return min(
        range(count),
        key=lambda fold: (
            of_size[fold],
            of_stratum[fold] + of_size[fold],
            (fold - first) % count,
        ),
    )


def _by_hash(groups: pd.Index, seed: int) -> list[str]:
    return sorted(groups, key=lambda group: integer_seed(seed, f"split fold {group}"))


def published_folds(path: Path, cases: pd.DataFrame) -> pd.Series:
    """Test fold, from 0, of every BUS-BRA case by case_id, as the collection publishes it.

    Args:
        path: ``5-fold-cv.csv`` or ``10-fold-cv.csv`` of BUS-BRA (columns ID and kFold, from 1).
        cases: rows with ``case_id`` and ``collection``.

    Raises:
        InputError: a file that is not of this form, or a BUS-BRA case that it does not name.
    """
    rows = read_rows(path, ("ID", "kFold"), key="ID")
    bad = [row for row in rows if not row["kFold"].isdecimal() or int(row["kFold"]) < 1]
    if bad:
        named = ", ".join(f"{row['ID']}: {row['kFold']!r}" for row in bad[:_LISTED])
        raise InputError(f"{path}: kFold of {named}; expected a fold number from 1")
    folds = pd.Series(
        {f"{bus_bra.COLLECTION}/{row['ID']}": int(row["kFold"]) - 1 for row in rows}, dtype=int
    )
    of_collection = cases["case_id"][cases["collection"] == bus_bra.COLLECTION]
    if of_collection.empty:
        raise InputError(
            f"{path}: published folds are BUS-BRA's, but no table holds {bus_bra.COLLECTION} "
            "cases; add its table, or leave the published folds out"
        )
    if absent := sorted(set(of_collection) - set(folds.index)):
        raise InputError(
            f"{path}: names no fold for {len(absent)} BUS-BRA case(s), e.g. "
            f"{', '.join(absent[:_LISTED])}; take the file of the same download"
        )
    return folds[folds.index.isin(of_collection)]
