"""By how much does synthetic data help? Dice by arm and paired gains, from per-case tables only.

Seeds are averaged per case first; a case is then one value. Intervals come from a bootstrap over
groups (patients or clusters of near-duplicates), because cases of one group are not independent.
"pooled" weights every case of every collection alike.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from stdiff.config.run import Config
from stdiff.downstream.arms import TRAINING, real_arm
from stdiff.evaluation.arm_choice import choose_arms
from stdiff.evaluation.learning_curve import learning_curve, worth
from stdiff.evaluation.statistics import (
    effect_size,
    group_bootstrap,
    holm,
    interval_text,
    minimum_detectable_effect,
    signed_rank_p,
)
from stdiff.evaluation.subgroups import subgroup_gains
from stdiff.evaluation.trainings import json_records, read_trainings, with_baseline
from stdiff.runtime.files import InputError, write_text
from stdiff.runtime.randomness import generator
from stdiff.table.label_budget import LabelBudget

_COLUMNS = [*TRAINING, "seed", "case_id", "collection", "group_id", "dice", "iou", "hd95_px"]
_COLUMNS += ["training_real"]


def check_pairs(per_case: pd.DataFrame) -> None:
    """Refuse tables whose trainings cannot be compared case by case.

    Raises:
        InputError: columns are missing, a case stands twice in one training, or a case that one
            training of a segmenter was tested on is absent from another.
    """
    if missing := [name for name in _COLUMNS if name not in per_case]:
        raise InputError(
            f"per-case table: column(s) {', '.join(missing)} missing, found "
            f"{', '.join(per_case.columns)}; make it with `stdiff segment`"
        )
    twice = per_case[per_case.duplicated([*TRAINING, "seed", "case_id"])]
    problems = [
        f"{_named(row)}: case {row['case_id']} stands twice" for row in twice.to_dict("records")
    ]
    for _, trainings in per_case.groupby("segmenter"):
        expected = set(trainings["case_id"])
        for key, rows in trainings.groupby([*TRAINING, "seed"]):
            if absent := sorted(expected - set(rows["case_id"])):
                name = _named(dict(zip([*TRAINING, "seed"], key, strict=True)))
                problems.append(
                    f"{name}: {len(absent)} case(s) absent, e.g. {', '.join(absent[:3])}"
                )
    if problems:
        raise InputError(
            "trainings cannot be compared case by case:\n"
            + "\n".join(f"- {problem}" for problem in problems[:10])
            + "\nmake these tables again with the same cases and splits"
        )


def empty_cases(per_case: pd.DataFrame) -> set[str]:
    """Cases without a Dice (both masks empty) in some training; left out of every arm alike."""
    return set(per_case.loc[per_case["dice"].isna(), "case_id"])


def dice_by_arm(per_case: pd.DataFrame, draws: int, seed: int) -> pd.DataFrame:
    """Mean Dice with its 95 % interval, IoU and HD95 of every segmenter, arm and label budget.

    Args:
        per_case: Rows of `stdiff segment`, several trainings together.
        draws: Draws of the bootstrap.
        seed: Of the run.

    ``dice_seed_sd`` is the standard deviation of the seeds' mean Dice (NaN with one seed); the
    interval does not contain it.

    Raises:
        InputError: see :func:`check_pairs`.
    """
    check_pairs(per_case)
    per_case = per_case[~per_case["case_id"].isin(empty_cases(per_case))]
    records = []
    for key, rows in per_case.groupby(TRAINING):
        for collection, part in _collections(rows):
            values = _over_seeds(part)
            # One stream a collection: the same groups are drawn for every arm.
            rng = generator(seed, f"dice interval {collection}")
            low, high = group_bootstrap(values["dice"], values["group_id"], draws, rng)
            records.append(
                dict(zip(TRAINING, key, strict=True))
                | {"collection": collection, **_counts(values, part)}
                | {"dice_mean": values["dice"].mean(), "dice_low": low, "dice_high": high}
                | {"dice_seed_sd": part.groupby("seed")["dice"].mean().std()}
                | {"iou_mean": values["iou"].mean(), "hd95_px_mean": values["hd95_px"].mean()}
            )
    return pd.DataFrame(records)


def gains(
    per_case: pd.DataFrame, *, baseline_arm: str = "real", draws: int, seed: int
) -> pd.DataFrame:
    """Mean paired difference in Dice of every arm to the baseline arm at the same label budget.

    ``wilcoxon_p`` tests the groups' mean differences, as cases of one group are not independent.
    ``effect_size`` is Cohen's d of these; ``minimum_detectable_effect`` is the smallest gain that
    so many cases would have shown (:mod:`stdiff.evaluation.statistics`).
    ``holm_p`` is corrected over all segmenters, arms and label budgets of a collection.
    Positive gains favour the arm.

    Raises:
        InputError: see :func:`check_pairs`, or the baseline arm is absent.
    """
    check_pairs(per_case)
    per_case = per_case[~per_case["case_id"].isin(empty_cases(per_case))]
    records = []
    for key, rows in per_case.groupby(TRAINING):
        segmenter, arm, labels = key
        if arm == baseline_arm:
            continue
        of_training = per_case["segmenter"].eq(segmenter) & per_case["labels"].eq(labels)
        baseline_rows = per_case[of_training & per_case["arm"].eq(baseline_arm)]
        if baseline_rows.empty:
            raise InputError(
                f"{_named(dict(zip(TRAINING, key, strict=True)))}: no table of the arm "
                f"{baseline_arm}-{LabelBudget.parse(labels).slug} to measure the gain against; "
                "make it with `stdiff segment`"
            )
        baselines = dict(_collections(baseline_rows))
        for collection, part in _collections(rows):
            values, baseline = _over_seeds(part), _over_seeds(baselines[collection])
            difference = values["dice"] - baseline["dice"]
            rng = generator(seed, f"gain interval {collection}")
            low, high = group_bootstrap(difference, values["group_id"], draws, rng)
            by_group = difference.groupby(values["group_id"]).mean()
            records.append(
                dict(zip(TRAINING, key, strict=True))
                | {"collection": collection, **_counts(values, part)}
                | {"gain_mean": difference.mean(), "gain_low": low, "gain_high": high}
                | {"effect_size": effect_size(by_group.to_numpy())}
                | {
                    "minimum_detectable_effect": minimum_detectable_effect(
                        difference, values["group_id"]
                    )
                }
                | {"wilcoxon_p": signed_rank_p(by_group.to_numpy())}
            )
    table = pd.DataFrame(records)
    if not table.empty:
        table["holm_p"] = table.groupby("collection")["wilcoxon_p"].transform(
            lambda p: holm(p.to_numpy())
        )
    return table


def evaluate_gain(tables: Sequence[Path], out: Path, *, config: Config) -> None:
    """Write Dice by arm and gains of per-case tables as JSON.

    Keys: ``baseline_arm``; lists of records ``by_arm``, ``gains``, ``chosen`` (see
    :func:`stdiff.evaluation.arm_choice.choose_arms`; with the gain of all test lesions, null of the
    baseline arm), ``subgroups``, ``learning_curve`` and ``worth``
    (see the functions of these names); ``excluded_both_empty`` (number of cases); ``holes``, the
    trainings that failed, with the reason: an arm is measured on the seeds that are left. All but
    the choice is of test lesions.

    Raises:
        InputError: a table is missing, or see :func:`gains`.
    """
    if not tables:
        raise InputError("no per-case table is given; make them with `stdiff segment`")
    rows, holes = read_trainings(tables)
    per_case = rows[rows["role"] == "test"] if "role" in rows else rows
    settings = {"draws": config.evaluation.bootstrap_draws, "seed": config.seed}
    baseline_arm = real_arm(config)
    by_arm = dice_by_arm(per_case, **settings)
    paired = with_baseline(per_case, holes, baseline_arm)
    gained = gains(paired, baseline_arm=baseline_arm, **settings)
    measured = paired[~paired["case_id"].isin(empty_cases(per_case))]
    result = {
        "baseline_arm": baseline_arm,
        "by_arm": json_records(by_arm),
        "gains": json_records(gained),
        "chosen": json_records(_with_gain(choose_arms(rows), gained)),
        "subgroups": json_records(subgroup_gains(measured, baseline_arm, **settings)),
        "learning_curve": json_records(learning_curve(by_arm, measured)),
        "worth": json_records(worth(measured, baseline_arm, **settings)),
        "excluded_both_empty": len(empty_cases(per_case)),
        "holes": json_records(holes),
    }
    write_text(out, json.dumps(result, indent=1, allow_nan=False) + "\n")


def gain_table_text(result: dict[str, Any]) -> str:
    """The JSON of :func:`evaluate_gain`, parsed, as a plain-text table: one line an arm."""
    gain_of = {_line_key(record): record for record in result["gains"]}
    lines = [
        f"{'segmenter':<16}{'collection':<12}{'labels':>8}  {'arm':<12}{'cases':>6}{'seeds':>6}"
        f"  {'Dice [95 %]':<22}{'gain [95 %]':<25}{'p (Holm)':>8}"
    ]
    for record in sorted(result["by_arm"], key=_line_order):
        gain = gain_of.get(_line_key(record))
        lines.append(
            f"{record['segmenter']:<16}{record['collection']:<12}{record['labels']:>8}"
            f"  {record['arm']:<12}{record['cases']:>6}{record['seeds']:>6}"
            f"  {interval_text(record, 'dice', ''):<22}"
            + (f"{interval_text(gain, 'gain', '+'):<25}{gain['holm_p']:>8.2g}" if gain else "")
        )
    lines.append(
        f"gain: paired difference to {result['baseline_arm']} at the same label budget; "
        "seeds averaged per case, groups resampled"
    )
    if result["excluded_both_empty"]:
        lines.append(f"left out: {result['excluded_both_empty']} case(s) with both masks empty")
    lines += [f"failed: {_named(hole)}: {hole['reason']}" for hole in result["holes"]]
    return "\n".join(line.rstrip() for line in lines)


def _with_gain(chosen: pd.DataFrame, gained: pd.DataFrame) -> pd.DataFrame:
    """Chosen arms with their pooled gain."""
    if chosen.empty or gained.empty:
        return chosen
    pooled = gained[gained["collection"] == "pooled"]
    names = ["gain_mean", "gain_low", "gain_high", "holm_p"]
    return chosen.merge(pooled[[*TRAINING, *names]], how="left", on=TRAINING)


def _collections(rows: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    yield "pooled", rows
    yield from rows.groupby("collection")


def _over_seeds(rows: pd.DataFrame) -> pd.DataFrame:
    """One row a case, metrics averaged over seeds, sorted by case_id."""
    return rows.groupby("case_id").agg(
        {"group_id": "first", "dice": "mean", "iou": "mean", "hd95_px": "mean"}
    )


def _counts(values: pd.DataFrame, rows: pd.DataFrame) -> dict[str, int]:
    return {
        "cases": len(values),
        "groups": values["group_id"].nunique(),
        "seeds": rows["seed"].nunique(),
    }


def _line_key(record: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(record[name] for name in (*TRAINING, "collection"))


def _line_order(record: dict[str, Any]) -> tuple[Any, ...]:
    collection, labels = record["collection"], LabelBudget.parse(record["labels"])
    return record["segmenter"], collection != "pooled", collection, labels


def _named(row: dict[str, Any]) -> str:
    seed = f", seed {row['seed']}" if "seed" in row else ""
    return f"{row['segmenter']}, {row['arm']}-{LabelBudget.parse(row['labels']).slug}{seed}"
