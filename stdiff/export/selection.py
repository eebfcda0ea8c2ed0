"""Which cases are exported, under which names and roles; problems are found before writing."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from stdiff.export.file_names import name_giver
from stdiff.runtime.files import InputError
from stdiff.table.cohort import read_splits
from stdiff.table.pixel_cells import pixel_problems
from stdiff.table.streaming import is_rejected, is_synthetic, iterate_rows

ROLES = ("train", "validation", "test")

# The pictures that become files.
PICTURES = ("image", "mask")
# Enough to know what can be exported, without reading the pictures.
_LIGHT = ("case_id", "image.path", "mask.path", "flags", "model_sha256", "filter")
_LISTED = 5


@dataclass(frozen=True)
class Case:
    """One case to be written.

    Attributes:
        row: of the case table.
        stem: name of its files, without suffix.
        role: train, validation or test.
        synthetic: whether a model made it.
        accepted: the filter's verdict; None if it has not judged the case.
    """

    row: dict[str, Any]
    stem: str
    role: str
    synthetic: bool
    accepted: bool | None

    def pixels(self, column: str) -> bytes | None:
        """The 8-bit grey PNG of a column of pixels, 0 or 255 in masks; None where there is none.

        Raises:
            InputError: the cell holds anything else.
        """
        for problem in pixel_problems(self.row, column):
            raise InputError(f"{self.row['case_id']}: {problem}; `stdiff verify` lists all such")
        return self.row[column] and self.row[column]["bytes"]


@dataclass(frozen=True)
class Choice:
    """The cases of some tables that are exported.

    Attributes:
        tables: case tables, or the shards of a corpus.
        splits: table of roles; without it all cases are for training. Synthetic cases always are.
        fold: of the splits.
        rejected_too: also cases that the filter rejected.
        labelled_only: only cases with a mask.
    """

    tables: Sequence[Path]
    splits: Path | None = None
    fold: int = 0
    rejected_too: bool = False
    labelled_only: bool = False

    def cases(self) -> Iterator[Case]:
        """All chosen cases in order, a few in memory at a time, with a progress bar."""
        with tqdm(total=self.chosen, desc="export", unit="case", mininterval=1) as progress:
            for table in self.tables:
                for row in filter(self._is_chosen, iterate_rows(table)):
                    synthetic = is_synthetic(row)
                    yield Case(
                        row=row,
                        stem=self._name_of(row["case_id"]),
                        role="train" if synthetic else self._role_of(row["case_id"]) or "train",
                        synthetic=synthetic,
                        accepted=row["filter"] and row["filter"]["accepted"],
                    )
                    progress.update()

    @property
    def chosen(self) -> int:
        """How many cases are exported."""
        return self._seen["chosen"]

    @property
    def left_out(self) -> str:
        """How many cases are left out and why; empty if none is."""
        reasons = {"that the filter rejected": "rejected", "without a mask": "unlabelled"}
        parts = [f"{self._seen[key]} {why}" for why, key in reasons.items() if self._seen[key]]
        return f"Left out: {' and '.join(parts)}." if parts else ""

    def _splits_beside(self) -> str:
        """The splits of the run that a table belongs to, if they are where a run keeps them."""
        beside = (Path(table).parent.parent / "splits.parquet" for table in self.tables)
        return str(next((path for path in beside if path.is_file()), "the table of `stdiff split`"))

    def problems(self, needs: Sequence[str], layout: str) -> list[str]:
        """All reasons why these cases cannot be exported; empty if they can.

        Args:
            needs: ``image``, ``mask`` or both, if every case must have it.
            layout: its name, for messages.

        Raises:
            InputError: the splits cannot be read.
        """
        if found := self._unreadable():
            return found
        seen = self._seen
        if not seen["rows"]:
            found.append("the case tables hold no rows; there is nothing to export")
        elif not seen["chosen"]:
            found.append(
                f"no case is left of {seen['rows']}: the filter rejected {seen['rejected']} "
                f"(--rejected-too takes them), --labelled-only left out {seen['unlabelled']}"
            )
        if (lacking := seen["without mask"]) and "mask" in needs:
            found.append(
                f"{lacking} of {seen['chosen']} cases have no mask ({self._few('mask')}), and "
                f"{layout} has no place for them; leave them out with --labelled-only, or choose "
                "--as folders or huggingface"
            )
        if (lacking := seen["without image"]) and "image" in needs:
            found.append(
                f"{lacking} of {seen['chosen']} cases have no image ({self._few('image')}); a plan "
                "has none yet: export the shards that `stdiff generate` makes of it"
            )
        if self.splits is None and seen["real"] and seen["synthetic"]:
            found.append(
                f"{seen['real']} real and {seen['synthetic']} synthetic cases without --splits: "
                "real test cases would become training cases; add --splits "
                f"{self._splits_beside()}, or export real and synthetic cases apart"
            )
        if lacking := seen["without role"]:
            found.append(
                f"{lacking} of {seen['chosen']} cases are real and not in {self.splits}; make the "
                "splits again from these tables with `stdiff split`"
            )
        return found + self._repeats()

    def _unreadable(self) -> list[str]:
        """Tables of which not even the first row can be read."""
        found = []
        for table in self.tables:
            try:
                next(iterate_rows(table, _LIGHT), None)
            except InputError as error:
                found.append(str(error))
        return found

    @cached_property
    def _seen(self) -> Counter[str]:
        """Counts over all rows."""
        seen: Counter[str] = Counter()
        for row in self._light_rows():
            seen["rows"] += 1
            rejected = is_rejected(row) and not self.rejected_too
            seen["rejected"] += rejected
            seen["unlabelled"] += not rejected and self.labelled_only and row["mask"] is None
            if self._is_chosen(row):
                seen["chosen"] += 1
                seen["synthetic" if is_synthetic(row) else "real"] += 1
                for column in PICTURES:
                    seen[f"without {column}"] += row[column] is None
                seen["without role"] += (
                    not is_synthetic(row) and self._role_of(row["case_id"]) is None
                )
        return seen

    @cached_property
    def _role_of(self) -> Callable[[str], str | None]:
        """Role of a real case; None if the splits do not name it."""
        if self.splits is None:
            return lambda case_id: "train"
        roles = read_splits(self.splits, self.fold)
        return dict(zip(roles["case_id"], roles["role"], strict=True)).get

    def _is_chosen(self, row: dict[str, Any]) -> bool:
        return (self.rejected_too or not is_rejected(row)) and not (
            self.labelled_only and row["mask"] is None
        )

    def _light_rows(self) -> Iterator[dict[str, Any]]:
        for table in self.tables:
            yield from iterate_rows(table, _LIGHT)

    def _few(self, lacks: str) -> str:
        """The first cases that lack an image or a mask."""
        names: list[str] = []
        for row in filter(self._is_chosen, self._light_rows()):
            if row[lacks] is None:
                if len(names) == _LISTED:
                    return ", ".join(names) + ", ..."
                names.append(row["case_id"])
        return ", ".join(names)

    def _chosen_ids(self) -> Iterator[str]:
        return (row["case_id"] for row in filter(self._is_chosen, self._light_rows()))

    @cached_property
    def _name_of(self) -> Callable[[str], str]:
        return name_giver(self._chosen_ids())

    def _repeats(self) -> list[str]:
        """Cases that the tables hold more than once; eight bytes a case are kept."""
        keys = np.fromiter(map(_key, self._chosen_ids()), np.uint64)
        values, counts = np.unique(keys, return_counts=True)
        if not (repeated := set(values[counts > 1].tolist())):
            return []
        found = Counter(name for name in self._chosen_ids() if _key(name) in repeated)
        shown = ", ".join(f"{name!r} ({n} times)" for name, n in found.most_common(_LISTED))
        more = ", ..." if len(found) > _LISTED else ""
        return [
            f"{len(found)} case ids occur more than once: {shown}{more}; name each table once and "
            "give each case an id of its own"
        ]


def refuse_problems(problems: Sequence[str]) -> None:
    """Raise one error that lists all problems, if there is any."""
    if len(problems) == 1:
        raise InputError(problems[0])
    if problems:
        raise InputError(f"{len(problems)} problems:\n  " + "\n  ".join(problems))


def _key(case_id: str) -> int:
    return int.from_bytes(hashlib.blake2b(case_id.encode(), digest_size=8).digest())
