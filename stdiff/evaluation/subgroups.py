"""Exploratory gains in subgroups of test lesions: pathology, BI-RADS, size and device."""

from __future__ import annotations

import numpy as np
import pandas as pd

from stdiff.downstream.per_case import TRAINING
from stdiff.evaluation.statistics import group_bootstrap, interval_columns
from stdiff.runtime.randomness import generator

_MIN_GROUPS = 10  # groups needed for an interval
_SIZES = ("small", "middle", "large")


def subgroup_gains(
    per_case: pd.DataFrame, baseline_arm: str, draws: int, seed: int
) -> pd.DataFrame:
    """Mean paired difference in Dice to the baseline arm within subgroups of all collections.

    Without p values: among so many subgroups some would be small by chance.

    Args:
        per_case: Rows of test lesions, without cases that have no Dice.
        baseline_arm: The arm of real images only.
        draws: Draws of the bootstrap over groups.
        seed: The run's seed.

    Returns:
        The training's columns, ``subgroup`` (e.g. ``pathology``), ``value``, ``cases``,
        ``groups``, ``gain_mean``, ``gain_low``, ``gain_high`` (null with fewer than 10 groups).
    """
    subgroups = _subgroups(per_case)
    dice = per_case.groupby([*TRAINING, "case_id"])["dice"].mean()
    groups = per_case.groupby("case_id")["group_id"].first()
    records = []
    for training in dice.index.droplevel("case_id").unique():
        segmenter, arm, labels = training
        if arm == baseline_arm:
            continue
        gain = dice[training] - dice[segmenter, baseline_arm, labels]
        for (subgroup, value), cases in subgroups.items():
            part = gain[gain.index.isin(cases)]
            part_groups = groups[part.index]
            count, interval = part_groups.nunique(), (np.nan, np.nan)
            if count >= _MIN_GROUPS:
                rng = generator(seed, "subgroup interval")
                interval = group_bootstrap(part.to_numpy(), part_groups.to_numpy(), draws, rng)
            records.append(
                dict(zip(TRAINING, training, strict=True))
                | {"subgroup": subgroup, "value": value, "cases": len(part), "groups": count}
                | interval_columns("gain", part.mean(), interval)
            )
    return pd.DataFrame(records)


def _subgroups(per_case: pd.DataFrame) -> dict[tuple[str, str], list[str]]:
    """Case ids by (subgroup, value)."""
    cases = per_case.drop_duplicates("case_id").set_index("case_id").sort_index()
    columns = {n: cases[n] for n in ("pathology", "birads", "device") if n in cases}
    if "lesion_pixels" in cases:
        thresholds = cases["lesion_pixels"].quantile([1 / 3, 2 / 3]).to_numpy()
        tercile = np.searchsorted(thresholds, cases["lesion_pixels"], side="left")
        columns["lesion size"] = pd.Series([_SIZES[i] for i in tercile], index=cases.index)
    return {
        (name, str(value)): list(part.index)
        for name, values in columns.items()
        for value, part in values.dropna().groupby(values.dropna())
    }
