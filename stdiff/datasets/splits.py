"""Train, validation and test roles that cut neither a patient nor a cluster of near-duplicates.

Groups are drawn by a hash of (seed, smallest case_id of the group) within a stratum of collection
and pathology. So the split depends on nothing but the seed and the cases: not on row or file
order, and a further collection moves nobody unless near-duplicates link it to the others.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from stdiff.cases import read_cases
from stdiff.datasets.duplicates import duplicate_groups, joined, thumbnail
from stdiff.datasets.raw import refuse_repeats
from stdiff.files import InputError, decode_png, written_whole
from stdiff.randomness import integer_seed

COLUMNS = ("case_id", "collection", "pathology", "patient_id", "group_id", "image", "mask")
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
_SEVERITY = ("malignant", "benign", "normal")
_ROLES = 3


def split_tables(
    tables: Sequence[Path], out: Path, *, seed: int, test: float, validation: float
) -> None:
    """Split the cases of all tables together and write ``splits.parquet``, whole or not at all.

    Raises:
        InputError: as :func:`make_splits`, or a table that cannot be read.
    """
    splits = make_splits(
        read_cases(tables, columns=COLUMNS), seed=seed, test=test, validation=validation
    )
    with written_whole(out) as aside:
        pq.write_table(pa.Table.from_pandas(splits, _SCHEMA, preserve_index=False), aside)


def make_splits(cases: pd.DataFrame, *, seed: int, test: float, validation: float) -> pd.DataFrame:
    """One row a case, sorted by case_id.

    Args:
        cases: rows of all case tables of the run, with the columns :data:`COLUMNS`.
        seed: of the run.
        test: fraction of each stratum's cases to hold out for testing.
        validation: fraction of each stratum's cases for validation.

    Returns:
        ``case_id``, ``collection``; ``group_id``: smallest case_id of those that patients and
        near-duplicates link; ``fold``: 0, the hold-out; ``role``; ``label_rank``: for training
        cases with a mask, in [0, 1): the case is labelled at fraction f if its rank is below f
        (nested; a group shares its rank; any f takes at least one group of each stratum);
        ``label_conflict``: its near-duplicates carry another pathology, so it is kept out of
        validation, test and labels.

    Raises:
        InputError: impossible fractions, a case_id twice, no case left for a role.
    """
    if not (0 < test < 1 and 0 <= validation < 1 and test + validation < 1):
        raise InputError(
            f"test {test} and validation {validation}: expected fractions with test above 0 and "
            "something left for training, e.g. test 0.2 and validation 0.1"
        )
    refuse_repeats(cases["case_id"], "case tables: case_id")
    cases = cases.sort_values("case_id", ignore_index=True)
    clusters = _near_duplicates(cases)
    splits = cases[["case_id", "collection"]].copy()
    splits["group_id"] = _groups(cases, clusters)
    splits["fold"] = 0
    splits["label_conflict"] = _conflicts(cases["pathology"], clusters)
    groups = _describe_groups(cases, splits)
    roles = _draw_roles(groups, seed, test, validation)
    splits["role"] = splits["group_id"].map(roles)
    labelled = cases["mask"].notna() & (splits["role"] == "train") & ~splits["label_conflict"]
    ranks = _label_ranks(splits["group_id"][labelled], groups, seed)
    splits["label_rank"] = splits["group_id"].map(ranks).where(labelled).astype("float64")
    _refuse_empty_roles(splits, groups, test, validation)
    return splits[_SCHEMA.names]


def _near_duplicates(cases: pd.DataFrame) -> np.ndarray:
    """Cluster number of each case; a row without an image is alone."""
    with_image = np.flatnonzero(cases["image"].notna())
    clusters = len(cases) + np.arange(len(cases))
    if with_image.size:
        # Tables of several sizes may meet here.
        cells = cases["image"].iloc[with_image]
        thumbnails = np.stack([thumbnail(decode_png(cell["bytes"])) for cell in cells])
        clusters[with_image] = duplicate_groups(thumbnails)
    return clusters


def _groups(cases: pd.DataFrame, clusters: np.ndarray) -> np.ndarray:
    """Smallest case_id of each case's group: the union of table groups, patients, clusters."""
    # A patient's number means something within its collection only.
    patients = [
        (collection, patient) if isinstance(patient, str) else None
        for collection, patient in zip(cases["collection"], cases["patient_id"], strict=True)
    ]
    links = [
        link for keys in (cases["group_id"], patients, clusters) for link in _links_to_first(keys)
    ]
    component = pd.Series(joined(len(cases), np.array(links).reshape(-1, 2)))
    return cases["case_id"].groupby(component).transform("min").to_numpy()


def _links_to_first(keys: Iterable[Hashable]) -> Iterator[tuple[int, int]]:
    """Links each row to the first one of the same key; a missing key links nothing."""
    first: dict[Hashable, int] = {}
    for row, key in enumerate(keys):
        if key is not None:
            yield row, first.setdefault(key, row)


def _conflicts(pathology: pd.Series, clusters: np.ndarray) -> np.ndarray:
    """True where a cluster of near-duplicates carries more than one pathology."""
    return (pathology.groupby(clusters).transform("nunique") > 1).to_numpy()


def _describe_groups(cases: pd.DataFrame, splits: pd.DataFrame) -> pd.DataFrame:
    """Per group: size in cases, stratum, and whether it may leave training."""
    severity = cases["pathology"].map({name: i for i, name in enumerate(_SEVERITY)})
    by_group = pd.DataFrame(
        {
            "collection": cases["collection"],
            # A patient with several findings counts by the gravest.
            "severity": severity.fillna(len(_SEVERITY)),
            "has_mask": cases["mask"].notna(),
            "conflict": splits["label_conflict"],
        }
    ).groupby(splits["group_id"])
    groups = by_group.agg(
        size=("conflict", "size"),
        collection=("collection", "first"),
        severity=("severity", "min"),
        has_mask=("has_mask", "any"),
        conflict=("conflict", "any"),
    )
    groups["stratum"] = groups["collection"] + "/" + groups["severity"].astype(str)
    groups["may_be_held_out"] = groups["has_mask"] & ~groups["conflict"]
    return groups


def _drawn_order(groups: pd.DataFrame, seed: int, purpose: str) -> pd.DataFrame:
    """Groups in the order of their hashes, each with the share of its stratum before it."""
    draw = [integer_seed(seed, f"{purpose} {group_id}") for group_id in groups.index]
    ordered = groups.assign(draw=draw).sort_values("draw")
    by_stratum = ordered.groupby("stratum")["size"]
    ordered["total"] = by_stratum.transform("sum")
    ordered["share_before"] = (by_stratum.cumsum() - ordered["size"]) / ordered["total"]
    return ordered


def _draw_roles(groups: pd.DataFrame, seed: int, test: float, validation: float) -> pd.Series:
    """Role by group: the first of each stratum are tested, the next validate, the rest train.

    A stratum of three groups or more has at least one in each role that is asked for.
    """
    roles = pd.Series("train", index=groups.index)
    ordered = _drawn_order(groups[groups["may_be_held_out"]], seed, "split role")
    for _, stratum in ordered.groupby("stratum"):
        # A group falls on the side of a border where its middle lies: shares round to nearest.
        middle = stratum["share_before"] + stratum["size"] / stratum["total"] / 2
        tested, held_out = int((middle <= test).sum()), int((middle <= test + validation).sum())
        if len(stratum) >= _ROLES:
            tested = min(max(tested, 1), len(stratum) - 2)
            held_out = min(max(held_out, tested + (validation > 0)), len(stratum) - 1)
        roles[stratum.index[:held_out]] = "validation"
        roles[stratum.index[:tested]] = "test"
    return roles


def _label_ranks(labelled_groups: pd.Series, groups: pd.DataFrame, seed: int) -> pd.Series:
    """Rank in [0, 1) by group: the share of its stratum's labelled cases that come before it."""
    sizes = labelled_groups.value_counts()
    of_labelled = groups.loc[sizes.index].assign(size=sizes)
    return _drawn_order(of_labelled, seed, "label rank")["share_before"]


def _refuse_empty_roles(
    splits: pd.DataFrame, groups: pd.DataFrame, test: float, validation: float
) -> None:
    counts = splits["role"].value_counts()
    wanted = {"train": 1.0, "validation": validation, "test": test}
    empty = [role for role, fraction in wanted.items() if fraction and not counts.get(role)]
    if empty:
        raise InputError(
            f"no case is left for {' and '.join(empty)} (test {test}, validation {validation}): "
            f"{len(splits)} cases form {len(groups)} groups, of which "
            f"{int(groups['may_be_held_out'].sum())} have masks and no conflicting class; "
            "give more cases with masks, or raise the fraction"
        )
