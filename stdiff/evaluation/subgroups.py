"""Gains in parts of the test lesions: by pathology, BI-RADS, size and device. Exploratory."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from stdiff.downstream.arms import TRAINING
from stdiff.evaluation.statistics import group_bootstrap
from stdiff.runtime.randomness import generator

_SMALL = 10  # groups; an interval of fewer says nothing
_SIZES = ("small", "middle", "large")


def subgroup_gains(
    per_case: pd.DataFrame, baseline_arm: str, draws: int, seed: int
) -> pd.DataFrame:
    """Mean paired difference in Dice to the baseline arm, within subgroups of all collections.

    There are no p values: so many parts are looked at that some would be small by chance.

    Args:
        per_case: Rows of test lesions, without cases that have no Dice.
        baseline_arm: The arm of real images only.
        draws: Of the bootstrap over groups.
        seed: Of the run.

    Returns:
        The training's columns, ``subgroup`` (e.g. ``pathology``), ``value``, ``cases``,
        ``groups``, ``gain_mean``, ``gain_low``, ``gain_high`` (null with fewer than 10 groups).
    """
    parts = _parts(per_case)
    dice = per_case.groupby([*TRAINING, "case_id"])["dice"].mean()
    groups = per_case.groupby("case_id")["group_id"].first()
    records = []
    for training in dice.index.droplevel("case_id").unique():
        segmenter, arm, labels = training
        if arm == baseline_arm:
            continue
        gain = dice[training] - dice[segmenter, baseline_arm, labels]
        for (subgroup, value), cases in parts.items():
            of_part = gain[gain.index.isin(cases)]
            records.append(
                dict(zip(TRAINING, training, strict=True))
                | {"subgroup": subgroup, "value": value}
                | _interval(of_part, groups[of_part.index], draws, seed)
            )
    return pd.DataFrame(records)


def _parts(per_case: pd.DataFrame) -> dict[tuple[str, str], list[str]]:
    """Cases of every subgroup, by (what, value)."""
    cases = per_case.drop_duplicates("case_id").set_index("case_id").sort_index()
    known = {n: cases[n] for n in ("pathology", "birads", "device") if n in cases}
    if "lesion_pixels" in cases:
        borders = cases["lesion_pixels"].quantile([1 / 3, 2 / 3]).to_numpy()
        tercile = np.searchsorted(borders, cases["lesion_pixels"], side="left")
        known["lesion size"] = pd.Series([_SIZES[i] for i in tercile], index=cases.index)
    return {
        (name, str(value)): list(part.index)
        for name, values in known.items()
        for value, part in values.dropna().groupby(values.dropna())
    }


def _interval(gain: pd.Series, groups: pd.Series, draws: int, seed: int) -> dict[str, Any]:
    count = groups.nunique()
    low = high = None
    if count >= _SMALL:
        low, high = group_bootstrap(
            gain.to_numpy(), groups.to_numpy(), draws, generator(seed, "subgroup interval")
        )
    return {"cases": len(gain), "groups": count} | {
        "gain_mean": gain.mean(),
        "gain_low": low,
        "gain_high": high,
    }
