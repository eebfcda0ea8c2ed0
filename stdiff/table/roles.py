"""Which cases a training step may see: by role, and by the label budget.

``splits.parquet`` holds one row a case and fold: its role, and for training cases a
``label_rank`` in [0, 1): with a share f of the labels the cases with rank < f are labelled, so
10 % of the labels are a part of 25 %, and those of 100 %. A budget of 40 cases takes the lowest
ranks that hold 40 annotated lesion cases; all images of a group share a rank, so they may be more.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from stdiff.runtime.files import InputError, UnusableFile, unreadable_table
from stdiff.table.label_budget import LabelBudget

_COLUMNS = ("case_id", "fold", "role", "label_rank")
_LISTED = 5


def read_splits(path: Path, fold: int = 0) -> pd.DataFrame:
    """One fold of the table that `stdiff split` wrote; a hold-out is fold 0.

    Raises:
        InputError: missing, not Parquet, without its columns, or without this fold.
    """
    path = Path(path)
    if not path.exists():
        raise UnusableFile(f"{path}: no such file; make it with `stdiff split`")
    try:
        table = pq.read_table(path, page_checksum_verification=True)
        splits = table.to_pandas(ignore_metadata=True)
    except (pa.ArrowException, ValueError, OSError) as error:
        raise unreadable_table(path, error) from error
    if missing := [name for name in _COLUMNS if name not in splits]:
        raise UnusableFile(
            f"{path}: column(s) {', '.join(missing)} missing, found {', '.join(splits.columns)}; "
            "make it with `stdiff split`"
        )
    of_fold = splits[splits["fold"] == fold].reset_index(drop=True)
    if of_fold.empty:
        raise InputError(
            f"{path}: has no fold {fold}, only {', '.join(map(str, sorted(set(splits['fold']))))}; "
            "correct split.fold, or make the splits again with more folds"
        )
    return of_fold


def cases_with_role(
    cases: pd.DataFrame, splits: pd.DataFrame, role: Literal["train", "validation", "test"]
) -> pd.DataFrame:
    """The rows of ``cases`` that the splits give this role, sorted by case_id.

    Raises:
        InputError: a case that the splits do not name, or name twice.
    """
    return _sorted_rows(cases, _split_rows(cases, splits)["role"] == role)


def training_cases(cases: pd.DataFrame, splits: pd.DataFrame) -> pd.DataFrame:
    """All training rows, labelled or not, sorted by case_id."""
    return cases_with_role(cases, splits, "train")


def labelled_training_cases(
    cases: pd.DataFrame, splits: pd.DataFrame, labels: LabelBudget
) -> pd.DataFrame:
    """Training rows within the label budget whose mask holds a lesion, sorted by case_id.

    Args:
        cases: with the columns ``case_id``, ``mask`` and ``lesion_count``.
        splits: as :func:`read_splits` gives it.
        labels: the label budget.

    Raises:
        InputError: no such row, or a case without a split.
    """
    labelled = _within_budget(cases, splits, labels)
    has_lesion = _has_lesion(cases)
    if not (labelled & has_lesion).any():
        raise InputError(
            f"no labelled training case with a lesion in {labels} of the labels "
            f"({len(cases)} cases, {int(labelled.sum())} of them labelled training cases); "
            "raise the budget or add annotated images"
        )
    return _sorted_rows(cases, labelled & has_lesion)


def lesion_free_training_cases(
    cases: pd.DataFrame, splits: pd.DataFrame, labels: LabelBudget
) -> pd.DataFrame:
    """Training rows within the label budget that are known to show no lesion, sorted by case_id.

    Args:
        cases: with the columns ``case_id``, ``mask`` and ``lesion_count``.
        splits: as :func:`read_splits` gives it.
        labels: the label budget; that an image has no lesion is a label.

    Raises:
        InputError: no such row, or a case without a split.
    """
    labelled = _within_budget(cases, splits, labels)
    free = labelled & (cases["mask"].notna() & (cases["lesion_count"] == 0)).to_numpy()
    if not free.any():
        raise InputError(
            f"no training image known to be lesion-free among {len(cases)} cases in {labels} of "
            "the labels; add a collection with normal images (BUSI has some), or set "
            "corpus.backgrounds: generated"
        )
    return _sorted_rows(cases, free)


def _within_budget(cases: pd.DataFrame, splits: pd.DataFrame, labels: LabelBudget) -> np.ndarray:
    """Which rows are training cases whose label may be used."""
    split = _split_rows(cases, splits)
    training = (split["role"] == "train").to_numpy()
    ranks = pd.to_numeric(split["label_rank"]).to_numpy()
    if labels.is_percent:
        return training & (ranks < labels.number / 100)
    of_lesions = np.sort(ranks[training & _has_lesion(cases)])
    if len(of_lesions) < labels.number:
        raise InputError(
            f"{labels} are more than the {len(of_lesions)} annotated training cases with a lesion; "
            f"e.g. labels: [{len(of_lesions)} cases], or add annotated images"
        )
    return training & (ranks <= of_lesions[labels.number - 1])


def _has_lesion(cases: pd.DataFrame) -> np.ndarray:
    return (cases["mask"].notna() & (cases["lesion_count"] > 0)).to_numpy()


def _split_rows(cases: pd.DataFrame, splits: pd.DataFrame) -> pd.DataFrame:
    """The row of ``splits`` for each row of ``cases``, in the same order."""
    if (twice := splits["case_id"].duplicated()).any():
        raise InputError(f"the splits name a case twice: {_few(splits['case_id'][twice])}")
    absent = ~cases["case_id"].isin(splits["case_id"])
    if absent.any():
        raise InputError(
            f"{int(absent.sum())} case(s) without a split: {_few(cases['case_id'][absent])}; "
            "make the splits again from these tables with `stdiff split`"
        )
    return splits.set_index("case_id").loc[cases["case_id"]]


def _sorted_rows(cases: pd.DataFrame, chosen: pd.Series) -> pd.DataFrame:
    return cases[pd.Series(chosen).to_numpy()].sort_values("case_id").reset_index(drop=True)


def _few(case_ids: pd.Series) -> str:
    shown = ", ".join(case_ids.head(_LISTED))
    return shown + (", ..." if len(case_ids) > _LISTED else "")
