"""Train, validation and test roles that divide no patient and no cluster of near-duplicates.

Groups are ordered by a hash of (seed, smallest case_id of the group) within a stratum of collection
and pathology, evenly over the terciles of lesion size. The split depends on the seed and the cases
only: row and file order do not matter, and another collection changes no role unless
near-duplicates link it to the others.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from stdiff.datasets.patients import alike_patients
from stdiff.datasets.raw import refuse_repeats, warn
from stdiff.near_duplicates import leaks
from stdiff.runtime.files import InputError, atomic_write
from stdiff.splitting.folds import draw_folds, published_folds
from stdiff.splitting.groups import describe_groups, drawn_order
from stdiff.table.cases import WRITING, read_cases

# The mask itself is not read, only whether there is one.
COLUMNS = (*leaks.COLUMNS, "lesion_count", "measures")
_SCHEMA = pa.schema(
    [
        ("case_id", pa.string()),
        ("collection", pa.string()),
        ("group_id", pa.string()),
        ("fold", pa.int32()),
        ("role", pa.string()),
        ("label_rank", pa.float64()),
        ("label_conflict", pa.bool_()),
    ]
)
_ROLES = 3
_LISTED = 5


def split_tables(
    tables: Sequence[Path],
    out: Path,
    *,
    seed: int,
    validation: float,
    test: float | None = None,
    folds: int | None = None,
    published: Path | None = None,
    test_only: Sequence[str] = (),
    duplicates: Path | None = None,
    processes: int = 1,
) -> str:
    """Split the cases of all tables together; files are written atomically.

    Args:
        tables: case tables of the run, in any order.
        out: ``splits.parquet``, see :func:`make_splits`.
        seed: of the run.
        validation: as :func:`make_splits`.
        test: as :func:`make_splits`; this or ``folds`` or ``published`` must be given.
        folds: as :func:`make_splits`.
        published: BUS-BRA's ``5-fold-cv.csv`` or ``10-fold-cv.csv``; its cases are tested in the
            fold that the file gives them. Its inner validation divides patients and is not read.
        test_only: as :func:`make_splits`.
        duplicates: Parquet file to write the pairs of cases of one scene to, if given
            (columns :data:`stdiff.near_duplicates.leaks.PAIR_SCHEMA`).
        processes: worker processes of that search; the result does not depend on it.

    Returns:
        One line: the numbers of cases, groups and roles.

    Raises:
        InputError: as :func:`make_splits`, or a file that cannot be read.
    """
    cases = read_cases(tables, columns=COLUMNS)
    refuse_repeats(cases["case_id"], "case tables: case_id")
    for line in alike_patients(cases):
        warn(line)
    given = published_folds(published, cases) if published else None
    pairs = leaks.pairs_of_tables(tables, cases, processes)
    splits = make_splits(
        cases,
        pairs,
        seed=seed,
        test=test,
        validation=validation,
        folds=folds,
        given=given,
        test_only=test_only,
    )
    if given is not None:
        _print_moved(splits, given)
    if duplicates:
        leaks.write_pairs(pairs, duplicates)
    with atomic_write(out) as temporary:
        table = pa.Table.from_pandas(splits, _SCHEMA, preserve_index=False)
        pq.write_table(table, temporary, **WRITING)
    return _counts(splits)


def _counts(splits: pd.DataFrame) -> str:
    """Numbers of a splits table; of its first fold where it has several."""
    folds, first = splits["fold"].nunique(), splits[splits["fold"] == 0]
    counts = first["role"].value_counts()
    roles = ", ".join(
        f"{counts[role]} {role}"
        for role in ("train", "validation", "test", "unused")
        if role in counts
    )
    said = f"{len(first)} cases in {first['group_id'].nunique()} groups, "
    said += f"{folds} folds; in fold 0: {roles}" if folds > 1 else roles
    labelled = int(first["label_rank"].notna().sum())
    said += f"; {labelled} training cases have a usable mask"
    conflicts = int(first["label_conflict"].sum())
    return said + (f", {conflicts} cases are of a class in doubt" if conflicts else "")


def make_splits(
    cases: pd.DataFrame,
    pairs: pd.DataFrame,
    *,
    seed: int,
    validation: float,
    test: float | None = None,
    folds: int | None = None,
    given: pd.Series | None = None,
    test_only: Collection[str] = (),
) -> pd.DataFrame:
    """One row per case and fold, sorted by fold and case_id.

    Args:
        cases: rows of all case tables of the run, with the columns :data:`COLUMNS`.
        pairs: pairs of cases that show one scene; see
            :func:`stdiff.near_duplicates.leaks.find_pairs`.
        seed: of the run.
        validation: fraction of each stratum's cases for validation, drawn anew in every fold.
        test: hold-out: fraction of each stratum's cases to test on, as fold 0.
        folds: k-fold: every case that may be tested is tested in one fold of 0 ... folds - 1.
        given: k-fold: test fold by case_id for the cases that have a published one.
        test_only: collections that are tested on in every fold and seen by no training stage.
            Groups that link others to them share this. Cases of theirs without a mask or with a
            conflicting class have the role ``unused``.

    Returns:
        ``case_id``, ``collection``; ``group_id``: smallest case_id of those that patients and
        near-duplicates link; ``fold``; ``role`` in that fold; ``label_rank``: for training
        cases with a mask, in [0, 1): the case is labelled at fraction f if its rank is below f
        (nested; a group shares its rank; any f takes at least one group of each stratum);
        ``label_conflict``: its near-duplicates carry another pathology, so it is kept out of
        validation, test and labels.

    Raises:
        InputError: impossible fractions, a case_id twice, no case left for a role.
    """
    if given is not None:
        folds = folds or int(given.max()) + 1
    _check_fractions(test, validation, folds)
    _refuse_unknown(test_only, cases)
    refuse_repeats(cases["case_id"], "case tables: case_id")
    cases = cases.sort_values("case_id", ignore_index=True)
    clusters = leaks.clusters_of(cases, pairs)
    base = cases[["case_id", "collection"]].copy()
    base["group_id"] = leaks.group_ids(cases, clusters)
    base["label_conflict"] = leaks.label_conflicts(cases["pathology"], clusters)
    has_mask = cases["lesion_count"].notna()
    groups = describe_groups(cases, base, has_mask, test_only)
    if folds is None:
        roles = [_draw_roles(groups, seed, test or 0.0, validation)]
    else:
        fold_of = draw_folds(groups, seed, folds, _by_group(given, base))
        roles = [_fold_roles(groups, seed, fold, fold_of, validation) for fold in range(folds)]
    parts = []
    outside = groups["may_be_tested"].map({True: "test", False: "unused"})[groups["test_only"]]
    for fold, role in enumerate(roles):
        role[outside.index] = outside
        splits = base.assign(fold=fold, role=base["group_id"].map(role))
        labelled = has_mask & (splits["role"] == "train") & ~splits["label_conflict"]
        ranks = _label_ranks(splits["group_id"][labelled], groups, seed)
        splits["label_rank"] = splits["group_id"].map(ranks).where(labelled).astype("float64")
        _refuse_empty_roles(splits, groups, validation)
        parts.append(splits[_SCHEMA.names])
    return pd.concat(parts, ignore_index=True)


def _print_moved(splits: pd.DataFrame, given: pd.Series) -> None:
    """Print the cases that are not tested in their published fold, and why."""
    fold = splits[splits["role"] == "test"].set_index("case_id")["fold"].reindex(given.index)
    for what, cases in (
        (
            "tested in another fold than published, with the scene or patient that they share",
            fold.notna(),
        ),
        ("tested in no fold, since their class is in doubt or they have no mask", fold.isna()),
    ):
        moved = given.index[cases & (fold != given)]
        if len(moved):
            shown = ", ".join(moved[:_LISTED]) + (", ..." if len(moved) > _LISTED else "")
            print(f"{len(moved)} case(s) are {what}: {shown}")


def _refuse_unknown(test_only: Collection[str], cases: pd.DataFrame) -> None:
    found = sorted(set(cases["collection"]))
    if unknown := sorted(set(test_only) - set(found)):
        raise InputError(
            f"test-only collection(s) {', '.join(unknown)} are in no table; found "
            f"{', '.join(found)}; add their tables, or correct the names"
        )
    if set(found) <= set(test_only):
        raise InputError(
            f"all collections ({', '.join(found)}) are for testing only, nothing is left to train "
            "on; take test_only from one of them"
        )


def _check_fractions(test: float | None, validation: float, folds: int | None) -> None:
    if folds is None and test is None:
        raise InputError("neither a test fraction nor folds are given, e.g. test 0.2 or folds 5")
    if folds is not None and folds < 2:
        raise InputError(f"folds {folds}: expected at least 2, e.g. folds 5")
    tested = 1 / folds if folds else test or 0.0
    if not (0 < tested < 1 and 0 <= validation < 1 and tested + validation < 1):
        what = f"folds {folds}" if folds else f"test {test}"
        raise InputError(
            f"{what} and validation {validation}: expected fractions with test above 0 and "
            "something left for training, e.g. test 0.2 and validation 0.1"
        )


def _draw_roles(groups: pd.DataFrame, seed: int, test: float, validation: float) -> pd.Series:
    """Role by group: the first of each stratum are tested, the next validate, the rest train.

    A stratum of three groups or more has at least one in each role with a fraction above 0.
    """
    roles = pd.Series("train", index=groups.index)
    ordered = drawn_order(groups[groups["may_be_held_out"]], seed, "split role")
    for _, stratum in ordered.groupby("stratum"):
        # A group's middle decides its side of a border, which rounds shares to the nearest.
        middle = stratum["share_before"] + stratum["size"] / stratum["total"] / 2
        tested, held_out = int((middle <= test).sum()), int((middle <= test + validation).sum())
        if len(stratum) >= _ROLES:
            tested = min(max(tested, 1), len(stratum) - 2)
            held_out = min(max(held_out, tested + (validation > 0)), len(stratum) - 1)
        roles[stratum.index[:held_out]] = "validation"
        roles[stratum.index[:tested]] = "test"
    return roles


def _fold_roles(
    groups: pd.DataFrame, seed: int, fold: int, fold_of: pd.Series, validation: float
) -> pd.Series:
    """Role by group in one fold: its own groups are tested, a part of the others validates."""
    roles = pd.Series("train", index=groups.index)
    tested = groups.index.isin(fold_of.index[fold_of == fold])
    roles[tested] = "test"
    others = groups[groups["may_be_held_out"] & ~tested]
    ordered = drawn_order(others, seed, f"split validation {fold}")
    for name, stratum in ordered.groupby("stratum"):
        # The fraction counts all cases of the stratum that may be held out, tested ones included.
        whole = groups["size"][groups["may_be_held_out"] & (groups["stratum"] == name)].sum()
        middle = stratum["size"].cumsum() - stratum["size"] / 2
        held_out = int((middle <= validation * whole).sum())
        if len(stratum) >= _ROLES - 1:
            held_out = min(max(held_out, int(validation > 0)), len(stratum) - 1)
        roles[stratum.index[:held_out]] = "validation"
    return roles


def _by_group(given: pd.Series | None, base: pd.DataFrame) -> pd.Series | None:
    """Published fold by group: that of most of its cases, the smaller one of two equally many."""
    if given is None:
        return None
    folds = base["case_id"].map(given)
    return folds.groupby(base["group_id"]).agg(lambda f: f.mode().min()).dropna().astype(int)


def _label_ranks(labelled_groups: pd.Series, groups: pd.DataFrame, seed: int) -> pd.Series:
    """Rank in [0, 1) by group: the share of its stratum's labelled cases that come before it."""
    sizes = labelled_groups.value_counts()
    of_labelled = groups.loc[sizes.index].assign(size=sizes)
    return drawn_order(of_labelled, seed, "label rank")["share_before"]


def _refuse_empty_roles(splits: pd.DataFrame, groups: pd.DataFrame, validation: float) -> None:
    counts = splits["role"].value_counts()
    wanted = ["train", "test", *(["validation"] if validation else [])]
    if empty := [role for role in wanted if not counts.get(role)]:
        raise InputError(
            f"no case is left for {' and '.join(empty)} in fold {splits['fold'].iloc[0]}: "
            f"{len(splits)} cases form {len(groups)} groups, of which "
            f"{int(groups['may_be_held_out'].sum())} have masks and no conflicting class; "
            "give more cases with masks, raise the fraction, or take fewer folds"
        )
