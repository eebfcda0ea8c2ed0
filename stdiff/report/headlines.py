"""The findings of a run in sentences."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from stdiff.config.run import Config
from stdiff.evaluation.statistics import training_noise
from stdiff.fetching.sources import SOURCES
from stdiff.table.label_budget import LabelBudget

Record = Mapping[str, Any]


def headlines(gain: Record, config: Config) -> list[str]:
    """What synthetic images changed, one text for every segmenter and label budget.

    It is about the arm that was chosen on validation lesions. Where that is the arm of real images
    alone, or none was chosen, it is about every other arm.

    Args:
        gain: The parsed JSON of :func:`stdiff.evaluation.gain.evaluate_gain`.
        config: Of the run.
    """
    pooled = {_key(record): record for record in gain["by_arm"] if record["collection"] == "pooled"}
    budgets = sorted({key[:2] for key in pooled}, key=lambda k: (k[0], LabelBudget.parse(k[1])))
    several = len({segmenter for segmenter, _ in budgets}) > 1
    return [
        _answer(gain, config, segmenter, labels, f" of {segmenter}" if several else "")
        for segmenter, labels in budgets
        if (segmenter, labels, gain["baseline_arm"]) in pooled
    ]


def chosen_arm(gain: Record, segmenter: str, labels: str) -> str | None:
    """The arm chosen on validation lesions; None where no choice was made."""
    for record in gain.get("chosen", []):
        if (record["segmenter"], record["labels"]) == (segmenter, labels):
            return record["arm"]
    return None


def compared_arm(gain: Record, segmenter: str, labels: str) -> str:
    """The arm to show beside the baseline: the chosen one, or the first other one by name."""
    chosen = chosen_arm(gain, segmenter, labels)
    others = sorted(arm for s, b, arm in map(_key, gain["gains"]) if (s, b) == (segmenter, labels))
    if chosen not in (None, gain["baseline_arm"]):
        return chosen
    return others[0] if others else gain["baseline_arm"]


def _answer(gain: Record, config: Config, segmenter: str, labels: str, of: str) -> str:
    baseline, chosen = gain["baseline_arm"], chosen_arm(gain, segmenter, labels)
    points = {_key(record): record for record in gain.get("learning_curve", [])}
    dice = {_key(r): r["dice_mean"] for r in gain["by_arm"] if r["collection"] == "pooled"}
    without = dice[segmenter, labels, baseline]
    gains = {
        record["arm"]: record
        for record in gain["gains"]
        if record["collection"] == "pooled" and _key(record)[:2] == (segmenter, labels)
    }
    lead = f"With {_labelled(labels, points.get((segmenter, labels, baseline)))}"
    lead += f" of {_collections(config)}, "
    if not gains:
        return f"{lead}real images alone reach a Dice{of} of {_plain(without)}."

    def change(arm: str) -> str:
        adding = _adding(config, arm, points.get((segmenter, labels, arm)))
        return _change(adding, of, without, dice[segmenter, labels, arm], gains[arm]) + _caveat(
            gain, gains[arm]
        )

    if chosen in gains:
        many = f" Arm {chosen} was chosen on validation lesions." if len(gains) > 1 else ""
        return lead + change(chosen) + many
    each = [change(arm) for arm in gains]
    if len(gains) > 1:
        each = [f"{text} (Arm {arm}.)" for arm, text in zip(gains, each, strict=True)]
    if chosen is None:
        return lead + " ".join(each[:1] + [text[0].upper() + text[1:] for text in each[1:]])
    return (
        f"{lead}real images alone were best on validation lesions, so that no synthetic images "
        f"would be added. On test lesions, {' '.join(each)}"
    )


def _change(adding: str, of: str, without: float, value: float, record: Record) -> str:
    """What an arm changed, as a sentence without its beginning."""
    points = f"{_points(record['gain_mean'], '+')} points"
    if record["gain_low"] is None:
        return (
            f"{adding} changed Dice{of} from {_plain(without)} to {_plain(value)} ({points}; the "
            "test cases are of one group, so there is no interval)."
        )
    low, high = record["gain_low"], record["gain_high"]
    brackets = f"({points}, 95 % {_points(low)} to {_points(high)})"
    if low <= 0 <= high:
        return (
            f"{adding} made no difference to Dice{of} that {record['cases']} test cases can show: "
            f"{_plain(without)} without, {_plain(value)} with them {brackets}."
        )
    verb = "raised" if low > 0 else "lowered"
    return f"{adding} {verb} Dice{of} from {_plain(without)} to {_plain(value)} {brackets}."


def _caveat(gain: Record, record: Record) -> str:
    """What limits a difference whose interval excludes 0."""
    if record["gain_low"] is None or record["gain_low"] <= 0 <= record["gain_high"]:
        return ""
    texts = []
    if record["holm_p"] >= 0.05:
        texts.append(
            f"After correction for the number of comparisons it is not shown (p = "
            f"{record['holm_p']:.2f})."
        )
    if chance := caution(gain, record):
        texts.append(f"But trainings alone may differ as much (by chance: {chance}).")
    return "".join(f" {text}" for text in texts)


def caution(result: Record, record: Record, measure: str = "dice") -> str:
    """By how much trainings alone may differ, as far as a gain is not larger than that; else empty.

    Args:
        result: With ``by_arm``, ``gains`` and ``baseline_arm``.
        record: One of its ``gains``.
        measure: ``dice`` or ``auc``.
    """
    arms = {(_key(r), r["collection"]): r for r in result["by_arm"]}
    key, collection = _key(record), record["collection"]
    pair = [arms[(*key[:2], arm), collection] for arm in (key[2], result["baseline_arm"])]
    if any(r[f"{measure}_seed_sd"] is None for r in pair):
        return "unknown: one training an arm"
    noise = training_noise([(r[f"{measure}_seed_sd"], r["seeds"]) for r in pair])
    return "" if abs(record["gain_mean"]) > noise else f"±{_points(noise)} points"


def worth_sentences(gain: Record) -> list[str]:
    """How many labelled cases each arm saves, in words."""
    return [_worth(record, gain["baseline_arm"]) for record in gain.get("worth", [])]


def _worth(record: Record, baseline: str) -> str:
    trained, saved = record["training_real"], record["worth_mean"]
    subject = f"Arm {record['arm']} of {record['segmenter']}, trained on {trained} labelled cases,"
    other = f"arm {baseline} with {round(trained + saved)}"
    if record["beyond"] == "less":
        lost = f"costs at least {-saved:.0f} labelled cases" if saved < 0 else "saves none"
        return f"{subject} has a lower Dice than {other}, the fewest measured: it {lost}."
    if record["beyond"] == "more":
        won = f"saves more than {saved:.0f} labelled cases" if saved > 0 else "is better"
        return f"{subject} has a higher Dice than {other}, the most measured: it {won}."
    verb = "saves" if saved >= 0 else "costs"
    ends = record["worth_low"], record["worth_high"]
    interval = "its 95 % interval reaches beyond the curve"
    if None not in ends:
        # Positive is what the verb says.
        low, high = sorted(end if saved >= 0 else -end for end in ends)
        interval = f"95 % {low:.0f} to {high:.0f}".replace("-", "−")
    return (
        f"{subject} has the Dice of {other}, read off the curve: it {verb} about "
        f"{abs(saved):.0f} labelled cases ({interval})."
    )


def _key(record: Record) -> tuple[str, str, str]:
    first = record["segmenter"] if "segmenter" in record else record["target"]
    return first, record["labels"], record["arm"]


def _labelled(labels: str, point: Record | None) -> str:
    budget = LabelBudget.parse(labels)
    counted = budget.is_percent and point
    return f"{budget.words} ({point['training_real']:,} cases)" if counted else budget.words


def _collections(config: Config) -> str:
    """The collections that labels are from, e.g. "BUSI and BUS-BRA"."""
    names = [name for name, of in config.collections.items() if not of.test_only]
    titles = [SOURCES[n].title.partition(":")[0] if n in SOURCES else n for n in names]
    listed = " and ".join(filter(None, [", ".join(titles[:-1]), titles[-1]]))
    return f"the simulated {listed}" if config.phantom else listed


def _adding(config: Config, arm: str, point: Record | None) -> str:
    known = config.segmentation.arms.get(arm)
    count = point and point.get("training_synthetic")
    images = f"{count:,} synthetic images" if count else "synthetic images"
    if known is None or not known.uses_corpus:
        return f"arm {arm}"
    return {
        "pretrained": f"training on {images} first",
        "synthetic": f"training on {images} instead of the real ones",
        "unlabelled": f"adding {images} without their masks",
    }.get(known.kind, f"adding {images}")


def _plain(dice: float) -> str:
    """A Dice with three places and no zero before the point."""
    return f"{dice:.3f}".removeprefix("0") if math.isfinite(dice) else f"{dice}"


def _points(difference: float, sign: str = "") -> str:
    """A difference of Dice in points (hundredths), with a proper minus."""
    return f"{100 * difference:{sign}.1f}".replace("-", "−")
