"""Comparison of arms from per-case tables, shared by Dice gains and AUC gains."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from stdiff.downstream.per_case import FAILURE, read_per_case
from stdiff.evaluation.statistics import holm, interval_text
from stdiff.runtime.files import InputError, write_text
from stdiff.table.label_budget import LabelBudget


def read_trainings(tables: Sequence[Path]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Per-case rows of successful trainings, and one row with the ``reason`` per failed one.

    Raises:
        InputError: a table is missing, or every training failed.
    """
    if absent := [str(path) for path in tables if not Path(path).is_file()]:
        raise InputError(
            f"per-case table(s) {', '.join(absent)} missing; make them with `stdiff segment`"
        )
    read = [read_per_case(path) for path in tables]
    failures = [table for table in read if "reason" in table]
    trainings = [table for table in read if "reason" not in table]
    if not trainings:
        reasons = "\n".join(f"- {reason}" for table in failures for reason in table["reason"])
        raise InputError(f"no training is left to compare; each failed:\n{reasons}")
    failed = pd.concat(failures, ignore_index=True) if failures else pd.DataFrame(columns=FAILURE)
    return pd.concat(trainings, ignore_index=True), failed


def check_same_cases(per_case: pd.DataFrame, training: Sequence[str]) -> None:
    """Check that all trainings with the same first key were tested once on the same cases.

    Args:
        per_case: Rows of several trainings.
        training: Key columns of a training, e.g. segmenter, arm and labels.

    Raises:
        InputError: a case is repeated in a training, or missing from one.
    """
    keys = [*training, "repetition"]
    repeated = per_case[per_case.duplicated([*keys, "case_id"])]
    problems = [
        f"{training_name(row)}: case {row['case_id']} is repeated"
        for row in repeated.to_dict("records")
    ]
    for _, trainings in per_case.groupby(training[0]):
        expected = set(trainings["case_id"])
        for key, rows in trainings.groupby(keys):
            if absent := sorted(expected - set(rows["case_id"])):
                name = training_name(dict(zip(keys, key, strict=True)))
                problems.append(
                    f"{name}: {len(absent)} case(s) absent, e.g. {', '.join(absent[:3])}"
                )
    if problems:
        raise InputError(
            "trainings cannot be compared case by case:\n"
            + "\n".join(f"- {problem}" for problem in problems[:10])
            + "\nmake these tables again with the same cases and splits"
        )


def training_name(row: Mapping[str, Any]) -> str:
    """A training in words, e.g. "unet, mixed-10, repetition 1"."""
    what = row["segmenter"] if "segmenter" in row else row["target"]
    repetition = f", repetition {row['repetition']}" if "repetition" in row else ""
    return f"{what}, {row['arm']}-{LabelBudget.parse(row['labels']).slug}{repetition}"


def by_collection(rows: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    """All rows as "pooled", then those of each collection."""
    yield "pooled", rows
    yield from rows.groupby("collection")


def counts(rows: pd.DataFrame) -> dict[str, int]:
    """Numbers of ``cases``, ``groups`` and ``seeds`` (repetitions) of per-case rows."""
    return {
        "cases": rows["case_id"].nunique(),
        "groups": rows["group_id"].nunique(),
        "seeds": rows["repetition"].nunique(),
    }


def with_holm_p(gains: list[dict[str, Any]], p: str) -> pd.DataFrame:
    """Gains with ``holm_p``: the column ``p`` corrected over all gains of a collection."""
    table = pd.DataFrame(gains)
    if not table.empty:
        table["holm_p"] = table.groupby("collection")[p].transform(lambda ps: holm(ps.to_numpy()))
    return table


def json_records(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Rows as plain Python values, with null for NaN and infinity."""
    return json.loads(table.to_json(orient="records", double_precision=15))


def write_result(result: Mapping[str, Any], out: Path) -> None:
    """Write a result as JSON; it must not hold NaN."""
    write_text(out, json.dumps(result, indent=1, allow_nan=False) + "\n")


def comparison_lines(
    result: Mapping[str, Any], key: str, widths: tuple[int, int], measure: str, title: str
) -> list[str]:
    """Lines of a plain-text table with one line per arm, label budget and collection.

    Args:
        result: JSON with the lists of records ``by_arm`` and ``gains``.
        key: First column, "segmenter" or "target".
        widths: Characters of the first column and of the arm.
        measure: Name of the measured mean and interval in ``by_arm``, e.g. "dice".
        title: Title of that column.
    """
    key_width, arm_width = widths

    def identity(record: Mapping[str, Any]) -> tuple[str, ...]:
        return tuple(record[name] for name in (key, "labels", "arm", "collection"))

    def order(record: Mapping[str, Any]) -> tuple[Any, ...]:
        collection, labels = record["collection"], LabelBudget.parse(record["labels"])
        return record[key], collection != "pooled", collection, labels

    gain_of = {identity(record): record for record in result["gains"]}
    lines = [
        f"{key:<{key_width}}{'collection':<12}{'labels':>8}  {'arm':<{arm_width}}{'cases':>6}"
        f"{'seeds':>6}  {title + ' [95 %]':<22}{'gain [95 %]':<25}{'p (Holm)':>8}"
    ]
    for record in sorted(result["by_arm"], key=order):
        line = (
            f"{record[key]:<{key_width}}{record['collection']:<12}{record['labels']:>8}"
            f"  {record['arm']:<{arm_width}}{record['cases']:>6}{record['seeds']:>6}"
            f"  {interval_text(record, measure, ''):<22}"
        )
        if gain := gain_of.get(identity(record)):
            line += f"{interval_text(gain, 'gain', '+'):<25}{gain['holm_p']:>8.2g}"
        lines.append(line)
    return lines
