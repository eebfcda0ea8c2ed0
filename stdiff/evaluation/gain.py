"""Dice by arm and paired gains over the baseline arm, from per-case tables.

Repetitions are averaged per case first, so a case is one value. Intervals come from a bootstrap
over groups (patients or clusters of near-duplicates), because cases of one group are not
independent. "pooled" weights every case of every collection alike.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from stdiff.config.run import Config
from stdiff.downstream.arms import real_arm
from stdiff.downstream.per_case import TRAINING
from stdiff.evaluation.arm_choice import choose_arms
from stdiff.evaluation.comparison import (
    by_collection,
    check_same_cases,
    comparison_lines,
    counts,
    json_records,
    read_trainings,
    training_name,
    with_holm_p,
    write_result,
)
from stdiff.evaluation.learning_curve import learning_curve, worth
from stdiff.evaluation.statistics import (
    effect_size,
    group_bootstrap,
    interval_columns,
    minimum_detectable_effect,
    signed_rank_p,
)
from stdiff.evaluation.subgroups import subgroup_gains
from stdiff.runtime.files import InputError
from stdiff.runtime.randomness import generator
from stdiff.table.label_budget import LabelBudget

_COLUMNS = [*TRAINING, "repetition", "case_id", "collection", "group_id", "dice", "iou", "hd95_px"]
_COLUMNS += ["training_real"]


def check_pairs(per_case: pd.DataFrame) -> None:
    """Check that the trainings can be compared case by case.

    Raises:
        InputError: columns are missing, or see
            :func:`stdiff.evaluation.comparison.check_same_cases`.
    """
    if missing := [name for name in _COLUMNS if name not in per_case]:
        raise InputError(
            f"per-case table: column(s) {', '.join(missing)} missing, found "
            f"{', '.join(per_case.columns)}; make it with `stdiff segment`"
        )
    check_same_cases(per_case, TRAINING)


def empty_cases(per_case: pd.DataFrame) -> set[str]:
    """Cases without a Dice (both masks empty) in some training; excluded from every arm."""
    return set(per_case.loc[per_case["dice"].isna(), "case_id"])


def dice_by_arm(per_case: pd.DataFrame, draws: int, seed: int) -> pd.DataFrame:
    """Mean Dice with 95 % interval, IoU and HD95 of every segmenter, arm and label budget.

    Args:
        per_case: Rows of `stdiff segment` of several trainings.
        draws: Draws of the bootstrap.
        seed: The run's seed.

    ``dice_seed_sd`` is the standard deviation of the repetitions' mean Dice (NaN for one
    repetition); the interval does not include this variation.

    Raises:
        InputError: see :func:`check_pairs`.
    """
    check_pairs(per_case)
    per_case = per_case[~per_case["case_id"].isin(empty_cases(per_case))]
    records = []
    for key, rows in per_case.groupby(TRAINING):
        for collection, part in by_collection(rows):
            values = _over_repetitions(part)
            # The stream depends on the collection only: all arms share the resampled groups.
            rng = generator(seed, f"dice interval {collection}")
            interval = group_bootstrap(values["dice"], values["group_id"], draws, rng)
            records.append(
                dict(zip(TRAINING, key, strict=True))
                | {"collection": collection, **counts(part)}
                | interval_columns("dice", values["dice"].mean(), interval)
                | {"dice_seed_sd": part.groupby("repetition")["dice"].mean().std()}
                | {"iou_mean": values["iou"].mean(), "hd95_px_mean": values["hd95_px"].mean()}
            )
    return pd.DataFrame(records)


def gains(
    per_case: pd.DataFrame, *, baseline_arm: str = "real", draws: int, seed: int
) -> pd.DataFrame:
    """Mean paired difference in Dice of every arm to the baseline arm at the same label budget.

    ``wilcoxon_p`` tests the groups' mean differences, as cases of one group are not independent;
    ``effect_size`` is their Cohen's d. ``minimum_detectable_effect`` is the smallest gain that
    these cases could show (:mod:`stdiff.evaluation.statistics`). ``holm_p`` is corrected over all
    segmenters, arms and label budgets of a collection. Positive gains favour the arm.

    Raises:
        InputError: see :func:`check_pairs`; or the baseline arm is missing.
    """
    check_pairs(per_case)
    per_case = per_case[~per_case["case_id"].isin(empty_cases(per_case))]
    records = []
    for key, rows in per_case.groupby(TRAINING):
        segmenter, arm, labels = key
        training = dict(zip(TRAINING, key, strict=True))
        if arm == baseline_arm:
            continue
        same_budget = per_case["segmenter"].eq(segmenter) & per_case["labels"].eq(labels)
        baseline_rows = per_case[same_budget & per_case["arm"].eq(baseline_arm)]
        if baseline_rows.empty:
            raise InputError(
                f"{training_name(training)}: no table of the baseline arm "
                f"{baseline_arm}-{LabelBudget.parse(labels).slug}; make it with `stdiff segment`"
            )
        baselines = dict(by_collection(baseline_rows))
        for collection, part in by_collection(rows):
            values, baseline = _over_repetitions(part), _over_repetitions(baselines[collection])
            difference, groups = values["dice"] - baseline["dice"], values["group_id"]
            rng = generator(seed, f"gain interval {collection}")
            interval = group_bootstrap(difference, groups, draws, rng)
            group_means = difference.groupby(groups).mean().to_numpy()
            records.append(
                training
                | {"collection": collection, **counts(part)}
                | interval_columns("gain", difference.mean(), interval)
                | {"effect_size": effect_size(group_means)}
                | {"minimum_detectable_effect": minimum_detectable_effect(difference, groups)}
                | {"wilcoxon_p": signed_rank_p(group_means)}
            )
    return with_holm_p(records, "wilcoxon_p")


def evaluate_gain(tables: Sequence[Path], out: Path, *, config: Config) -> None:
    """Write Dice by arm and gains of per-case tables as JSON.

    Keys: ``baseline_arm``; lists of records ``by_arm``, ``gains``, ``chosen`` (see
    :func:`stdiff.evaluation.arm_choice.choose_arms`; with the arm's gain on test lesions, null for
    the baseline arm), ``subgroups``, ``learning_curve`` and ``worth`` (see the functions of these
    names); ``excluded_both_empty`` (number of cases); ``failures``, the failed trainings with the
    reason. An arm is measured on its successful repetitions. Everything but the choice is computed
    on test lesions.

    Raises:
        InputError: a table is missing, or see :func:`gains`.
    """
    if not tables:
        raise InputError("no per-case table is given; make them with `stdiff segment`")
    rows, failures = read_trainings(tables)
    per_case = rows[rows["role"] == "test"] if "role" in rows else rows
    settings = {"draws": config.evaluation.bootstrap_draws, "seed": config.seed}
    baseline_arm = real_arm(config)
    by_arm = dice_by_arm(per_case, **settings)
    paired = _with_baseline(per_case, failures, baseline_arm)
    gained = gains(paired, baseline_arm=baseline_arm, **settings)
    excluded = empty_cases(per_case)
    measured = paired[~paired["case_id"].isin(excluded)]
    result = {
        "baseline_arm": baseline_arm,
        "by_arm": json_records(by_arm),
        "gains": json_records(gained),
        "chosen": json_records(_with_gain(choose_arms(rows), gained)),
        "subgroups": json_records(subgroup_gains(measured, baseline_arm, **settings)),
        "learning_curve": json_records(learning_curve(by_arm, measured)),
        "worth": json_records(worth(measured, baseline_arm, **settings)),
        "excluded_both_empty": len(excluded),
        "failures": json_records(failures),
    }
    write_result(result, out)


def gain_table_text(result: dict[str, Any]) -> str:
    """The parsed JSON of :func:`evaluate_gain` as a plain-text table with one line per arm."""
    lines = comparison_lines(result, "segmenter", (16, 12), "dice", "Dice")
    lines.append(
        f"gain: paired difference to {result['baseline_arm']} at the same label budget; "
        "seeds averaged per case, groups resampled"
    )
    if result["excluded_both_empty"]:
        lines.append(f"left out: {result['excluded_both_empty']} case(s) with both masks empty")
    lines += [f"failed: {training_name(row)}: {row['reason']}" for row in result["failures"]]
    return "\n".join(line.rstrip() for line in lines)


def _with_baseline(
    per_case: pd.DataFrame, failures: pd.DataFrame, baseline_arm: str
) -> pd.DataFrame:
    """Rows without the segmenters and label budgets whose baseline trainings all failed."""
    keys = ["segmenter", "labels"]
    failed = failures.loc[failures["arm"] == baseline_arm, keys].drop_duplicates()
    trained = per_case.loc[per_case["arm"] == baseline_arm, keys].drop_duplicates()
    lost = pd.MultiIndex.from_frame(failed).difference(pd.MultiIndex.from_frame(trained))
    return per_case[~pd.MultiIndex.from_frame(per_case[keys]).isin(lost)]


def _with_gain(chosen: pd.DataFrame, gained: pd.DataFrame) -> pd.DataFrame:
    """Chosen arms with their pooled gain."""
    if chosen.empty or gained.empty:
        return chosen
    pooled = gained[gained["collection"] == "pooled"]
    names = ["gain_mean", "gain_low", "gain_high", "holm_p"]
    return chosen.merge(pooled[[*TRAINING, *names]], how="left", on=TRAINING)


def _over_repetitions(rows: pd.DataFrame) -> pd.DataFrame:
    """One row per case, metrics averaged over repetitions, sorted by case_id."""
    return rows.groupby("case_id").agg(
        {"group_id": "first", "dice": "mean", "iou": "mean", "hd95_px": "mean"}
    )
