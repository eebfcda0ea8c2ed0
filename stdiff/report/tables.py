"""Records of numbers as tables of text, with units and rounding."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from stdiff.birads.lexicon import PATHOLOGIES
from stdiff.table.cases import read_cases

Record = Mapping[str, Any]

NOT_KNOWN = "–"

# Labels that :func:`column_label` cannot derive from the key.
_LABELS = {
    "dice": "Dice",
    "iou": "IoU",
    "hd95": "HD95",
    "kid": "KID",
    "kid subset size": "KID subset size",
    "frechet distance": "Fréchet distance",
    "wilcoxon p": "p (Wilcoxon)",
    "holm p": "p (Holm)",
    "bootstrap p": "p (bootstrap)",
    "auc": "AUC",
    "auc seed sd": "SD of the seeds' AUC",
    "effect size": "effect size (d)",
    "validation dice": "validation Dice",
    "training real": "real labelled cases",
    "worth": "worth [real cases]",
    "dice seed sd": "SD of the seeds' Dice",
    "mask dice": "generated images, against their masks",
    "ceiling": "ceiling: real test images",
    "excluded both empty": "left out, both masks empty",
    "n a": "N of the first",
    "n b": "N of the second",
    "rank deficient": "too few images for the Fréchet distance",
    "generated above test p99": "generated images above the 99th percentile of test images",
    "p50": "median correlation",
    "p99": "99th percentile",
}
_UNITS = {"px": "px", "mm": "mm", "s": "s", "mb": "MB"}
# Unit of the brackets after a mean, if not a 95 % interval: KID has percentiles of subsets.
_BRACKETS = {"kid": "2.5 to 97.5 % of subsets"}


@dataclass(frozen=True)
class Table:
    """Text cells with column headings."""

    columns: list[str]
    rows: list[list[str]]
    numeric: list[bool]  # columns of numbers, right-aligned


def records_table(records: Sequence[Record], leave_out: Iterable[str] = ()) -> Table:
    """One row per record; ``X`` (or ``X_mean``) with ``X_low`` and ``X_high`` become one column.

    Args:
        records: May have different keys; missing values are shown as unknown.
        leave_out: Keys to omit.
    """
    names = list(dict.fromkeys(name for record in records for name in record))
    # Columns of interval ends → column of the mean.
    ends = {
        f"{_base(name)}_{end}": name
        for name in names
        for end in ("low", "high")
        if f"{_base(name)}_{end}" in names
    }
    shown = [name for name in names if name not in ends and name not in set(leave_out)]

    def cell(record: Record, name: str) -> str:
        if name in ends.values():
            return _interval(record, name)
        return number_text(name, record.get(name))

    return Table(
        columns=[column_label(name, name in ends.values()) for name in shown],
        rows=[[cell(record, name) for name in shown] for record in records],
        numeric=[not any(isinstance(record.get(n), str) for record in records) for n in shown],
    )


def nested_tables(measured: Record) -> list[tuple[str, Table]]:
    """Titled tables of a mapping of plain values, records and groups of records."""
    groups = {k: v for k, v in measured.items() if isinstance(v, dict)}
    records = {k: v for k, v in groups.items() if not any(isinstance(x, dict) for x in v.values())}
    values = {k: v for k, v in measured.items() if k not in groups}
    tables = []
    if any(records.values()):
        tables.append(("", _named_records(records)))
    if values:
        rows = [[column_label(k), number_text(k, v)] for k, v in values.items()]
        tables.append(("", Table(["", "value"], rows, [False, True])))
    for name, group in groups.items():
        if name not in records:
            tables.append((column_label(name), _named_records(group)))
    return tables


def _named_records(records: Mapping[str, Record]) -> Table:
    return records_table([{"": column_label(name), **record} for name, record in records.items()])


def column_label(name: str, interval: bool = False) -> str:
    """A record's key in words with its unit: ``hd95_px_mean`` → ``HD95 [px]``."""
    base, _, unit = _base(name).rpartition("_")
    words = (base if base and unit in _UNITS else _base(name)).replace("_", " ")
    label = _LABELS.get(words, words)
    if base and unit in _UNITS:
        label += f" [{_UNITS[unit]}]"
    return f"{label} [{_BRACKETS.get(_base(name), '95 %')}]" if interval else label


def number_text(name: str, value: Any) -> str:
    """A value rounded as is usual for its key, ``name``."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return NOT_KNOWN
    if isinstance(value, bool):
        return "yes" if value else "no"
    if not isinstance(value, float):
        return f"{value}"
    if name.endswith("_p"):
        return f"{value:.2g}" if value >= 0.0001 else "< 0.0001"
    if re.search(r"_(px|mm|s|mb)(_|$)", name):
        return f"{value:.1f}"
    if name.startswith("gain"):
        return f"{value:+.4f}"
    return f"{value:.2g}" if 0 < abs(value) < 0.001 else f"{value:.3f}"


def _interval(record: Record, name: str) -> str:
    low, high = (number_text(name, record.get(f"{_base(name)}_{end}")) for end in ("low", "high"))
    mean = number_text(name, record.get(name))
    # A single group has a mean but no interval.
    return mean if NOT_KNOWN in (low, high) else f"{mean} [{low}, {high}]"


def _base(name: str) -> str:
    return name.removesuffix("_mean")


def cases_table(tables: Sequence[Path], splits: pd.DataFrame) -> Table:
    """Number of cases by collection, role and pathology."""
    cases = read_cases(tables, ["case_id", "collection", "pathology"])
    cases = cases.merge(splits[["case_id", "group_id", "role", "label_rank"]], on="case_id")
    cases["pathology"] = cases["pathology"].fillna("unknown")
    roles = ["train", "validation", "test"]
    rows = []
    for collection, part in [*cases.groupby("collection"), ("all", cases)]:
        for role in [role for role in roles if role in set(part["role"])]:
            of_role = part[part["role"] == role]
            counts = of_role["pathology"].value_counts()
            rows.append(
                {"collection": collection, "role": role}
                | {name: int(counts.get(name, 0)) for name in (*PATHOLOGIES, "unknown")}
                | {"cases": len(of_role), "groups": of_role["group_id"].nunique()}
                | {"usable labels": int(of_role["label_rank"].notna().sum()) or None}
            )
    return records_table(rows)


def quarantine_table(tables: Mapping[str, pd.DataFrame]) -> Table:
    """Files left out, by collection and reason, the most frequent first.

    Reasons that differ in numbers or quotations only are one row.
    """
    rows = []
    for collection, problems in tables.items():
        kinds = problems["reason"].str.replace(r"'[^']*'|\b\d[\d.]*\b", "…", regex=True)
        for kind, of_kind in problems.groupby(kinds):
            first = of_kind.iloc[0]
            # Keep the numbers if all files have the same reason.
            reason = first["reason"] if of_kind["reason"].nunique() == 1 else kind
            rows.append(
                {"collection": collection, "reason": reason, "files": len(of_kind)}
                | {"for instance": first["source_path"]}
            )
    return records_table(sorted(rows, key=lambda row: -row["files"]))


def steps_table(benchmarks: Path) -> Table:
    """Seconds and peak memory by step, from Snakemake's benchmark files; the longest first.

    Args:
        benchmarks: Folder of ``<step>.tsv`` or ``<step>/<job>.tsv`` (or ``.jsonl``).
    """
    jobs = []
    for path in sorted(benchmarks.rglob("*")):
        if path.suffix in (".tsv", ".jsonl"):
            lines = path.suffix == ".jsonl"
            found = pd.read_json(path, lines=True) if lines else pd.read_csv(path, sep="\t")
            step = path.relative_to(benchmarks).with_suffix("").parts[0]
            jobs.append(found[["s", "max_rss"]].assign(step=step))
    if not jobs:
        return Table([], [], [])
    table = pd.concat(jobs, ignore_index=True)
    # Snakemake writes a dash for jobs too short to be measured.
    for column in ("s", "max_rss"):
        table[column] = pd.to_numeric(table[column], errors="coerce")
    rows = [
        {"step": step, "jobs": len(rows), "total_s": float(rows["s"].sum())}
        | {"longest_job_s": float(rows["s"].max()), "peak_memory_mb": float(rows["max_rss"].max())}
        for step, rows in [*table.groupby("step"), ("all", table)]
    ]
    return records_table(sorted(rows, key=lambda row: (row["step"] == "all", -row["total_s"])))
