"""Which cases a training step may see: by role, and by the label budget.

``splits.parquet`` holds one row per case and fold: its role, and for training cases a
``label_rank`` in [0, 1). A budget of a share f labels the cases with rank < f, so smaller budgets
are subsets of larger ones. A budget of 40 cases takes the lowest ranks that hold 40 annotated
lesion cases; images of a group share a rank, so there may be a few more.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd

from stdiff.runtime.files import InputError
from stdiff.table.cases import read_cases
from stdiff.table.label_budget import LabelBudget
from stdiff.table.parquet import open_parquet

_COLUMNS = ("case_id", "fold", "role", "label_rank")
_LISTED = 5
Role = Literal["train", "validation", "test"]


def read_splits(path: Path, fold: int = 0) -> pd.DataFrame:
    """One fold of a table of `stdiff split`; a single hold-out is fold 0.

    Raises:
        InputError: missing, not Parquet, without its columns, or without this fold.
    """
    hint = "make it with `stdiff split`"
    with open_parquet(path, hint=hint, columns=_COLUMNS) as file:
        splits = file.read().to_pandas(ignore_metadata=True)
    of_fold = splits[splits["fold"] == fold].reset_index(drop=True)
    if of_fold.empty:
        raise InputError(
            f"{path}: has no fold {fold}, only {', '.join(map(str, sorted(set(splits['fold']))))}; "
            "correct split.fold, or make the splits again with more folds"
        )
    return of_fold


@dataclass(frozen=True)
class Cohort:
    """Cases of real images with the roles that one fold of the splits gives them.

    Attributes:
        cases: rows of case tables; ``case_id``, ``mask`` and ``lesion_count`` are needed.
        splits: see :func:`read_splits`.
    """

    cases: pd.DataFrame
    splits: pd.DataFrame

    def with_role(self, role: Role) -> pd.DataFrame:
        """The rows of this role, sorted by case_id.

        Raises:
            InputError: a case that the splits do not name, or name twice.
        """
        return self._sorted_rows(self._split_rows["role"] == role)

    def training(self) -> pd.DataFrame:
        """All training rows, labelled or not, sorted by case_id."""
        return self.with_role("train")

    def labelled_training(self, labels: LabelBudget) -> pd.DataFrame:
        """Training rows within the label budget whose mask holds a lesion, sorted by case_id.

        Raises:
            InputError: no such row, or a case without a split.
        """
        labelled = self._within_budget(labels)
        if not (labelled & self._has_lesion).any():
            raise InputError(
                f"no labelled training case with a lesion in {labels} of the labels "
                f"({len(self.cases)} cases, {int(labelled.sum())} of them labelled training "
                "cases); raise the budget or add annotated images"
            )
        return self._sorted_rows(labelled & self._has_lesion)

    def lesion_free_training(self, labels: LabelBudget) -> pd.DataFrame:
        """Training rows within the label budget known to show no lesion, sorted by case_id.

        Knowing that an image shows no lesion is a label, too.

        Raises:
            InputError: no such row, or a case without a split.
        """
        free = (self.cases["mask"].notna() & (self.cases["lesion_count"] == 0)).to_numpy()
        free = free & self._within_budget(labels)
        if not free.any():
            raise InputError(
                f"no training image known to be lesion-free among {len(self.cases)} cases in "
                f"{labels} of the labels; add a collection with normal images (BUSI has some), "
                "or set corpus.backgrounds: generated"
            )
        return self._sorted_rows(free)

    def lesions(self, role: Literal["validation", "test"] = "test") -> pd.DataFrame:
        """Annotated cases of this role with a lesion, with the ``group_id`` of the splits.

        Raises:
            InputError: there is none.
        """
        rows = self.with_role(role)
        rows = rows[rows["mask"].notna() & (rows["lesion_count"] > 0)]
        if rows.empty:
            raise InputError(
                f"none of the {len(self.cases)} cases is an annotated {role} lesion; raise "
                f"split.{role} or add an annotated collection"
            )
        return rows.assign(group_id=self.groups_of(rows["case_id"])).reset_index(drop=True)

    def groups_of(self, case_ids: pd.Series) -> np.ndarray:
        """The group of each case; all cases of a group have one role."""
        return self.splits.set_index("case_id")["group_id"].loc[case_ids].to_numpy()

    def _within_budget(self, labels: LabelBudget) -> np.ndarray:
        """Which rows are training cases whose label may be used."""
        training = (self._split_rows["role"] == "train").to_numpy()
        ranks = pd.to_numeric(self._split_rows["label_rank"]).to_numpy()
        if labels.is_percent:
            return training & (ranks < labels.number / 100)
        of_lesions = np.sort(ranks[training & self._has_lesion])
        if len(of_lesions) < labels.number:
            raise InputError(
                f"{labels} are more than the {len(of_lesions)} annotated training cases with a "
                f"lesion; e.g. labels: [{len(of_lesions)} cases], or add annotated images"
            )
        return training & (ranks <= of_lesions[labels.number - 1])

    @cached_property
    def _has_lesion(self) -> np.ndarray:
        return (self.cases["mask"].notna() & (self.cases["lesion_count"] > 0)).to_numpy()

    @cached_property
    def _split_rows(self) -> pd.DataFrame:
        """The row of ``splits`` for each case, in the order of the cases."""
        if (twice := self.splits["case_id"].duplicated()).any():
            raise InputError(f"the splits name a case twice: {_few(self.splits['case_id'][twice])}")
        absent = ~self.cases["case_id"].isin(self.splits["case_id"])
        if absent.any():
            few = _few(self.cases["case_id"][absent])
            raise InputError(
                f"{int(absent.sum())} case(s) without a split: {few}; "
                "make the splits again from these tables with `stdiff split`"
            )
        return self.splits.set_index("case_id").loc[self.cases["case_id"]]

    def _sorted_rows(self, chosen: pd.Series | np.ndarray) -> pd.DataFrame:
        rows = self.cases[pd.Series(chosen).to_numpy()]
        return rows.sort_values("case_id").reset_index(drop=True)


@dataclass(frozen=True)
class CohortFiles:
    """Where a cohort is stored: case tables, their splits, and the fold of this run."""

    tables: Sequence[Path]
    splits: Path
    fold: int = 0

    def read(self, columns: Sequence[str] | None = None) -> Cohort:
        """The cohort, with these columns of the case tables only.

        Raises:
            InputError: a table that is missing, damaged or without its columns or fold.
        """
        return Cohort(read_cases(self.tables, columns), read_splits(self.splits, self.fold))


def _few(case_ids: pd.Series) -> str:
    shown = ", ".join(case_ids.head(_LISTED))
    return shown + (", ..." if len(case_ids) > _LISTED else "")
