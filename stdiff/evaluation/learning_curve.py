"""Dice against the number of real cases, and how many of them a synthetic corpus replaces."""

from __future__ import annotations

import numpy as np
import pandas as pd

from stdiff.downstream.per_case import TRAINING
from stdiff.evaluation.statistics import bootstrap_means, interval_columns, percentile_interval
from stdiff.runtime.randomness import generator

_BEYOND = {-1: "less", 0: "", 1: "more"}


def learning_curve(by_arm: pd.DataFrame, per_case: pd.DataFrame) -> pd.DataFrame:
    """Numbers of training images and pooled Dice of every segmenter, arm and label budget.

    ``training_real`` counts real labelled cases, ``training_synthetic`` synthetic images.

    Args:
        by_arm: Result of :func:`stdiff.evaluation.gain.dice_by_arm`.
        per_case: The rows it was computed from.
    """
    numbers = [name for name in ("training_real", "training_synthetic") if name in per_case]
    images = per_case.groupby(TRAINING)[numbers].max().reset_index()
    pooled = by_arm[by_arm["collection"] == "pooled"].merge(images, on=TRAINING)
    points = pooled[[*TRAINING, *numbers, "dice_mean", "dice_low", "dice_high"]]
    return points.sort_values(["segmenter", "arm", "training_real"], ignore_index=True)


def worth(per_case: pd.DataFrame, baseline_arm: str, draws: int, seed: int) -> pd.DataFrame:
    """Number of real labelled cases that each arm saves, from the baseline's learning curve.

    For an arm trained on n real cases: the number of cases at which the baseline arm has the same
    Dice, interpolated over the logarithm of the number of cases, minus n. The curve is not
    extrapolated: beyond its ends the value is that of the end, ``beyond`` is ``more`` or ``less``,
    and an interval's end is infinite (null in JSON). With a single group both ends are NaN. The
    baseline needs at least two label budgets.

    Args:
        per_case: Rows of test lesions, without cases that have no Dice.
        baseline_arm: The arm of real images only.
        draws: Draws of the bootstrap over groups, shared by all arms.
        seed: The run's seed.

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
        drawn = bootstrap_means(dice.to_numpy(), groups, draws, rng)
        means = {column: dice[column].mean() for column in dice}
        at = [real[column] for column in baseline]
        for number, column in enumerate(dice.columns):
            if column[0] == baseline_arm:
                continue
            mean, side = _cases_at(
                np.array([[means[c] for c in baseline]]), np.array([means[column]]), at
            )
            cases_D, sides = _cases_at(
                drawn[:, [dice.columns.get_loc(c) for c in baseline]], drawn[:, number], at
            )
            cases_D[sides != 0] = np.inf * sides[sides != 0]
            # Draws may be infinite, so no interpolation between them.
            interval = percentile_interval(cases_D - real[column], method="inverted_cdf")
            records.append(
                {"segmenter": segmenter, "arm": column[0], "labels": column[1]}
                | {"training_real": int(real[column])}
                | interval_columns("worth", mean[0] - real[column], interval)
                | {"beyond": _BEYOND[side[0]]}
            )
    return pd.DataFrame(records)


def _cases_at(
    curves_DP: np.ndarray, dice_D: np.ndarray, cases: list[int]
) -> tuple[np.ndarray, np.ndarray]:
    """Numbers of cases (D,) at which the curves (D, P) first reach a Dice (D,).

    Curves are made non-decreasing first: where one falls, it stays at its maximum so far. The
    second array (D,) is -1 where the Dice is below the curve, 1 where it is above, and 0 otherwise.
    """
    rising_DP = np.maximum.accumulate(curves_DP, axis=1)
    lower = (rising_DP < dice_D[:, None]).sum(axis=1)  # number of points below the Dice
    side = (lower == len(cases)).astype(int) - (dice_D < rising_DP[:, 0])
    end = np.clip(lower, 1, len(cases) - 1)
    row, at = np.arange(len(dice_D)), np.array(cases, float)
    below, above = rising_DP[row, end - 1], rising_DP[row, end]
    share = np.divide(dice_D - below, above - below, out=np.zeros(len(row)), where=above > below)
    found = at[end - 1] * (at[end] / at[end - 1]) ** share.clip(0, 1)
    return np.where(side > 0, at[-1], found), side
