"""The findings of a run in one sentence each."""

from __future__ import annotations

from typing import Any

from stdiff.config.run import Config
from stdiff.evaluation.statistics import interval_text
from stdiff.report.tables import number_text
from stdiff.table.label_budget import LabelBudget


def headlines(gain: dict[str, Any], config: Config) -> list[str]:
    """The gain of every segmenter, label budget and arm over all collections, in words.

    A difference counts as shown if both its interval and its corrected test exclude zero.

    Args:
        gain: The parsed JSON of :func:`stdiff.evaluation.gain.evaluate_gain`.
        config: Of the run.
    """
    pooled = [record for record in gain["gains"] if record["collection"] == "pooled"]
    pooled.sort(key=lambda r: (r["segmenter"], LabelBudget.parse(r["labels"]), r["arm"]))
    return [_sentence(record, gain["baseline_arm"], config) for record in pooled]


def _sentence(record: dict[str, Any], baseline: str, config: Config) -> str:
    labels, arm = LabelBudget.parse(record["labels"]), record["arm"]
    budget = f"{labels} of the labels" if labels.is_percent else f"{labels.number} labelled cases"
    known = config.segmentation.arms.get(arm)
    subject = f"synthetic images (arm {arm})" if known and known.uses_corpus else f"arm {arm}"
    low, p = record["gain_low"], record["holm_p"]
    verdict = "no difference shown"
    if low is not None and not low <= 0 <= record["gain_high"] and p < 0.05:
        verdict = "better" if low > 0 else "worse"
    return (
        f"With {budget}, {subject} changed the Dice of {record['segmenter']} by "
        f"{interval_text(record, 'gain', '+')} against arm {baseline}, "
        f"p (Holm) {number_text('holm_p', p)} ({verdict})."
    )
