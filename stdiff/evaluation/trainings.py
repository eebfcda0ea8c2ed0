"""The tables of a benchmark's trainings, and the holes that failed ones left."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from stdiff.downstream.arms import HOLE
from stdiff.downstream.per_case import read_per_case
from stdiff.runtime.files import InputError


def read_trainings(tables: Sequence[Path]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Per-case rows of trainings that succeeded, and a row of each other one with its ``reason``.

    Raises:
        InputError: a table is missing, or every training failed.
    """
    if absent := [str(path) for path in tables if not Path(path).is_file()]:
        raise InputError(f"no such per-case table: {', '.join(absent)}; make it (`stdiff segment`)")
    read = [read_per_case(path) for path in tables]
    holes = [table for table in read if "reason" in table]
    whole = [table for table in read if "reason" not in table]
    if not whole:
        reasons = "\n".join(f"- {reason}" for table in holes for reason in table["reason"])
        raise InputError(f"no training is left to compare; each failed:\n{reasons}")
    missing = pd.concat(holes, ignore_index=True) if holes else pd.DataFrame(columns=HOLE)
    return pd.concat(whole, ignore_index=True), missing


def with_baseline(per_case: pd.DataFrame, holes: pd.DataFrame, baseline_arm: str) -> pd.DataFrame:
    """Rows without the trainings that lost what they are compared with to a hole."""
    within = ["segmenter", "labels"]
    lost = holes.loc[holes["arm"] == baseline_arm, within].drop_duplicates()
    there = per_case.loc[per_case["arm"] == baseline_arm, within].drop_duplicates()
    lost = pd.MultiIndex.from_frame(lost).difference(pd.MultiIndex.from_frame(there))
    return per_case[~pd.MultiIndex.from_frame(per_case[within]).isin(lost)]


def json_records(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Rows as plain Python values; what is not a finite number becomes null."""
    return json.loads(table.to_json(orient="records", double_precision=15))
