"""The page's parts on Dice and AUC by arm, read from a run's folder."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from stdiff.config.run import Config
from stdiff.report.canvas import arms_in_order
from stdiff.report.figures import dice_by_arm
from stdiff.report.gain_figures import forest_plot, learning_curves
from stdiff.report.headlines import caution, compared_arm, headlines, worth_sentences
from stdiff.report.pictures import segmentations
from stdiff.report.tables import Record, Table, records_table
from stdiff.runtime.files import read_json
from stdiff.table.label_budget import LabelBudget

_CHANCE = "chance of trainings"


def gain_contents(path: Path, config: Config, folder: Path) -> dict[str, Any] | None:
    """Answer, Dice by arm, gains and subgroups, the baseline first within a collection.

    Args:
        path: ``gain.json``; None is returned where there is none.
        config: Of the run.
        folder: Where the figures go.
    """
    if not path.is_file():
        return None
    result = read_json(path)
    baseline = result["baseline_arm"]
    collections = ["pooled", *(record["collection"] for record in result["by_arm"])]

    def place(record: Record) -> tuple[Any, ...]:
        at, labels = collections.index(record["collection"]), LabelBudget.parse(record["labels"])
        return at, record["segmenter"], labels, record["arm"] != baseline

    def table(records: list[Record]) -> Table | None:
        first = ("collection", "segmenter", "labels")
        return _table(
            {key: record[key] for key in first} | dict(record)
            for record in sorted(records, key=place)
        )

    return {
        "baseline": baseline,
        "headlines": headlines(result, config),
        "by_arm": table(result["by_arm"]),
        "gains": table(with_caution(result)),
        "chosen": _table(result["chosen"]) if result.get("chosen") else None,
        "subgroups": _table(result.get("subgroups", [])),
        "worth": worth_sentences(result),
        "excluded": result["excluded_both_empty"],
        "failures": _table(result["failures"]),
        "figure": dice_by_arm(result, folder / "dice_by_arm"),
        "forest": forest_plot(result, folder / "gains"),
        "curve": learning_curves(result, folder / "learning_curve"),
    }


def auc_contents(path: Path) -> dict[str, Any] | None:
    """AUC by arm and gains of the classifiers; None where there is no ``auc.json``."""
    if not path.is_file():
        return None
    result = read_json(path)

    def ordered(records: list[Record]) -> Table | None:
        def place(record: Record) -> tuple[Any, ...]:
            first = record["target"], record["collection"] != "pooled", record["collection"]
            arm = record["arm"]
            return *first, LabelBudget.parse(record["labels"]), arm != result["baseline_arm"], arm

        return _table(sorted(records, key=place))

    return {
        "baseline": result["baseline_arm"],
        "by_arm": ordered(result["by_arm"]),
        "gains": ordered(with_caution(result, "auc")),
        "failures": _table(result["failures"]),
    }


def with_caution(result: Record, measure: str = "dice") -> list[Record]:
    """The gains of a parsed result; a small p has beside it what the chance of trainings allows.

    Args:
        result: Of ``stdiff gain`` or ``stdiff auc``.
        measure: ``dice`` or ``auc``.
    """
    return [
        record | {_CHANCE: caution(result, record, measure) if record["holm_p"] < 0.05 else ""}
        for record in result["gains"]
    ]


def segmentation_contents(
    run: Path, config: Config, cases: Sequence[Path]
) -> dict[str, Any] | None:
    """Test cases of worst, median and best Dice, of the first segmenter and fewest labels.

    None where a table is missing, or holds no predicted masks (as of an earlier version).
    """
    if not cases or not (run / "gain.json").is_file():
        return None
    result = read_json(run / "gain.json")
    segmenter = next(iter(config.segmentation.segmenters))
    labels = min(config.segmentation.budgets)
    baseline = result["baseline_arm"]
    arms = dict.fromkeys((baseline, compared_arm(result, segmenter, str(labels))))
    numbers = {arm: number for number, arm in enumerate(arms_in_order(result))}
    home = run / "segment" / segmenter
    trainings = {arm: sorted(home.glob(f"{arm}-{labels.slug}/seed*.parquet")) for arm in arms}
    if not all(trainings.values()):
        return None
    rows = segmentations(trainings, numbers, cases)
    return rows and {"rows": rows, "segmenter": segmenter, "labels": labels, "arms": list(arms)}


def _table(records: Iterable[Record]) -> Table | None:
    """A table without the segmenter if there is only one; None without records."""
    rows = list(records)
    alone = len({record.get("segmenter") for record in rows}) == 1
    return records_table(rows, ["segmenter"] if alone else []) if rows else None
