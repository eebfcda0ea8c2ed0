"""Choice of an arm on validation lesions, so that its gain on test lesions is unbiased."""

from __future__ import annotations

import pandas as pd

_WITHIN = ["segmenter", "labels"]


def choose_arms(per_case: pd.DataFrame) -> pd.DataFrame:
    """The arm with the best mean validation Dice of each segmenter and label budget.

    Args:
        per_case: Rows of `stdiff segment`; only those with the role ``validation`` are used.

    Returns:
        Columns ``segmenter``, ``labels``, ``arm``, ``validation_dice``; no row without validation
        lesions. All cases and repetitions have equal weight; ties go to the first arm by name. A
        case without a Dice in some training is left out of all arms.
    """
    if "role" not in per_case:
        return pd.DataFrame(columns=[*_WITHIN, "arm", "validation_dice"])
    rows = per_case[per_case["role"] == "validation"]
    rows = rows[~rows["case_id"].isin(rows.loc[rows["dice"].isna(), "case_id"])]
    means = rows.groupby([*_WITHIN, "arm"])["dice"].mean().reset_index(name="validation_dice")
    best = means.sort_values("validation_dice", ascending=False, kind="stable")
    chosen = best.groupby(_WITHIN, sort=True).head(1)
    return chosen.sort_values(_WITHIN, ignore_index=True)[[*_WITHIN, "arm", "validation_dice"]]
