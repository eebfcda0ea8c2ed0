"""Dice against the number of real cases, and how many of them a synthetic corpus is worth."""

from __future__ import annotations

import numpy as np
import pandas as pd

from stdiff.downstream.arms import TRAINING
from stdiff.evaluation.statistics import drawn_means
from stdiff.runtime.randomness import generator

_BEYOND = {-1: "less", 0: "", 1: "more"}


def learning_curve(by_arm: pd.DataFrame, per_case: pd.DataFrame) -> pd.DataFrame:
    """Points of every segmenter and arm: ``training_real`` cases and the pooled mean Dice.

    Args:
        by_arm: As :func:`stdiff.evaluation.gain.dice_by_arm` gives it.
        per_case: The rows it was made of.
    """
    real = per_case.groupby(TRAINING)["training_real"].max().reset_index()
    pooled = by_arm[by_arm["collection"] == "pooled"].merge(real, on=TRAINING)
    points = pooled[[*TRAINING, "training_real", "dice_mean", "dice_low", "dice_high"]]
    return points.sort_values(["segmenter", "arm", "training_real"], ignore_index=True)


def worth(per_case: pd.DataFrame, baseline_arm: str, draws: int, seed: int) -> pd.DataFrame:
    """How many real labelled cases each arm saves, read off the baseline's learning curve.

    For an arm trained on n real cases: the number at which the baseline arm, interpolated in the
    logarithm of the number of cases, has the same Dice, minus n. Outside the numbers that the
    baseline was trained on nothing is extrapolated: the value stops there, and ``beyond`` says
    ``more`` or ``less``; an end of the interval that lies there is infinite (null in JSON). With a
    single group both ends are NaN. Needs the baseline at two label budgets or more.

    Args:
        per_case: Rows of test lesions, without cases that have no Dice.
        baseline_arm: The arm of real images only.
        draws: Of the bootstrap over groups; the same groups are drawn for all arms.
        seed: Of the run.

    Returns:
        ``segmenter``, ``arm``, ``labels``, ``training_real``, ``worth_mean``, ``worth_low``,
        ``worth_high`` (cases; 95 % percentile interval), ``beyond``.
    """
    records = []
    for segmenter, rows in per_case.groupby("segmenter"):
        dice = rows.pivot_table(
            index=["group_id", "case_id"], columns=["arm", "labels"], values="dice"
        )
        real = rows.groupby(["arm", "labels"])["training_real"].max()
        baseline = sorted(
            (c for c in dice if c[0] == baseline_arm), key=lambda column: real[column]
        )
        if len(baseline) < 2:
            continue
        groups = dice.index.get_level_values("group_id").to_numpy()
        rng = generator(seed, f"worth interval {segmenter}")
        drawn = drawn_means(dice.to_numpy(), groups, draws, rng)
        means = {column: dice[column].mean() for column in dice}
        at = [real[column] for column in baseline]
        for number, column in enumerate(dice.columns):
            if column[0] == baseline_arm:
                continue
            mean, side = _cases_at(
                np.array([[means[c] for c in baseline]]), np.array([means[column]]), at
            )
            of_draws, sides = _cases_at(
                drawn[:, [dice.columns.get_loc(c) for c in baseline]], drawn[:, number], at
            )
            of_draws[sides != 0] = np.inf * sides[sides != 0]
            low, high = _interval(of_draws - real[column])
            records.append(
                {"segmenter": segmenter, "arm": column[0], "labels": column[1]}
                | {"training_real": int(real[column]), "worth_mean": mean[0] - real[column]}
                | {"worth_low": low, "worth_high": high, "beyond": _BEYOND[side[0]]}
            )
    return pd.DataFrame(records)


def _interval(values: np.ndarray) -> np.ndarray:
    """95 % percentile interval (2,) of values that may be infinite; NaN of none."""
    if not len(values):
        return np.full(2, np.nan)
    # Between a finite and an infinite value there is nothing to interpolate.
    return np.percentile(values, [2.5, 97.5], method="inverted_cdf")


def _cases_at(
    curves_DP: np.ndarray, dice_D: np.ndarray, cases: list[int]
) -> tuple[np.ndarray, np.ndarray]:
    """Numbers of cases (D,) at which the curves first reach a Dice.

    Curves are made to rise: more cases are not taken to harm, and where a curve falls it stays
    level until it is higher than before. The second array (D,) is -1 where the Dice lies below
    the curve, 1 where it lies above, and 0 else.
    """
    rising_DP = np.maximum.accumulate(curves_DP, axis=1)
    lower = (rising_DP < dice_D[:, None]).sum(axis=1)  # points of the curve below the Dice
    side = (lower == len(cases)).astype(int) - (dice_D < rising_DP[:, 0])
    end = np.clip(lower, 1, len(cases) - 1)
    row, at = np.arange(len(dice_D)), np.array(cases, float)
    below, above = rising_DP[row, end - 1], rising_DP[row, end]
    share = np.divide(dice_D - below, above - below, out=np.zeros(len(row)), where=above > below)
    found = at[end - 1] * (at[end] / at[end - 1]) ** share.clip(0, 1)
    return np.where(side > 0, at[-1], found), side
