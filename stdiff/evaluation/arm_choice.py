"""Which arm to take: chosen on validation lesions, so that the gain of the choice is a fair one."""

from __future__ import annotations

import pandas as pd

_WITHIN = ["segmenter", "labels"]


def choose_arms(per_case: pd.DataFrame) -> pd.DataFrame:
    """The arm with the best mean validation Dice of each segmenter and label budget.

    Args:
        per_case: Rows of `stdiff segment`; only those with the role ``validation`` are looked at.

    Returns:
        Columns ``segmenter``, ``labels``, ``arm``, ``validation_dice``; no row without
        validation lesions. Cases weigh alike, seeds are averaged; of equally good arms the first
        by name is taken. A case without a Dice in some training has no say on any arm.
    """
    if "role" not in per_case:
        return pd.DataFrame(columns=[*_WITHIN, "arm", "validation_dice"])
    seen = per_case[per_case["role"] == "validation"]
    seen = seen[~seen["case_id"].isin(seen.loc[seen["dice"].isna(), "case_id"])]
    means = seen.groupby([*_WITHIN, "arm"])["dice"].mean().reset_index(name="validation_dice")
    best = means.sort_values("validation_dice", ascending=False, kind="stable")
    chosen = best.groupby(_WITHIN, sort=True).head(1)
    return chosen.sort_values(_WITHIN, ignore_index=True)[[*_WITHIN, "arm", "validation_dice"]]
