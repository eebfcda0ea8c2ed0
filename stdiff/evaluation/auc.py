"""By how much does synthetic data help a classifier? AUC by arm and paired gains.

The area under the ROC curve is the share of pairs of a positive and a negative case that the score
puts in the right order, ties counting half (Hanley & McNeil 1982). Shares are averaged over seeds,
and over classes, each against all others, where there are more than two. Intervals come from a
bootstrap over groups, whose draws are the same for every arm; DeLong's variance would take the
cases of one patient for independent.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from stdiff.config.run import Config
from stdiff.downstream.arms import real_arm
from stdiff.downstream.classes import CLASSES
from stdiff.evaluation.statistics import drawn_groups, holm, interval_text
from stdiff.evaluation.trainings import json_records, read_trainings
from stdiff.runtime.files import InputError, write_text
from stdiff.runtime.randomness import generator
from stdiff.table.label_budget import LabelBudget

_TRAINING = ["target", "labels", "arm"]


def evaluate_auc(tables: Sequence[Path], out: Path, *, config: Config) -> None:
    """Write AUC by arm, and gains over the arm of real images only, as JSON.

    Keys: ``baseline_arm``; lists of records ``by_arm`` (``auc_mean``, ``auc_low``, ``auc_high``,
    ``auc_seed_sd``), ``gains`` (``gain_mean``, ``gain_low``, ``gain_high``, ``bootstrap_p``,
    ``holm_p`` over all rows of a collection), ``holes``. Only test lesions are counted.

    Raises:
        InputError: a table is missing, all trainings failed, or they were not tested on the same
            cases.
    """
    rows, holes = read_trainings(tables)
    tested = rows[rows["role"] == "test"]
    _check_cases(tested)
    baseline = real_arm(config)
    draws, seed = config.evaluation.bootstrap_draws, config.seed
    by_arm, gains = [], []
    for target, of_target in tested.groupby("target"):
        for collection, part in [("pooled", of_target), *of_target.groupby("collection")]:
            measured = {}
            for key, training in part.groupby(_TRAINING):
                rng = generator(seed, f"auc interval {target} {collection}")
                measured[key] = mean_auc(training, CLASSES[target], draws, rng)
            for key, (auc, drawn, sd) in measured.items():
                named = dict(zip(_TRAINING, key, strict=True)) | {"collection": collection}
                named |= _counts(part[(part[_TRAINING] == list(key)).all(axis=1)])
                by_arm.append(named | _interval("auc", auc, drawn) | {"auc_seed_sd": sd})
                of_baseline = measured.get((*key[:2], baseline))
                if key[2] != baseline and of_baseline is not None:
                    gained = drawn - of_baseline[1]
                    gains.append(
                        named
                        | _interval("gain", auc - of_baseline[0], gained)
                        | {"bootstrap_p": _two_sided_p(gained)}
                    )
    table = pd.DataFrame(gains)
    if not table.empty:
        table["holm_p"] = table.groupby("collection")["bootstrap_p"].transform(
            lambda p: holm(p.to_numpy())
        )
    result = {
        "baseline_arm": baseline,
        "by_arm": json_records(pd.DataFrame(by_arm)),
        "gains": json_records(table),
        "holes": json_records(holes),
    }
    write_text(out, json.dumps(result, indent=1, allow_nan=False) + "\n")


def auc_table_text(result: dict[str, Any]) -> str:
    """The JSON of :func:`evaluate_auc`, parsed, as a plain-text table: one line an arm."""
    gain_of = {_line_key(record): record for record in result["gains"]}
    lines = [
        f"{'target':<11}{'collection':<12}{'labels':>8}  {'arm':<16}{'cases':>6}{'seeds':>6}"
        f"  {'AUC [95 %]':<22}{'gain [95 %]':<25}{'p (Holm)':>8}"
    ]
    for record in sorted(result["by_arm"], key=_line_order):
        gain = gain_of.get(_line_key(record))
        lines.append(
            f"{record['target']:<11}{record['collection']:<12}{record['labels']:>8}"
            f"  {record['arm']:<16}{record['cases']:>6}{record['seeds']:>6}"
            f"  {interval_text(record, 'auc', ''):<22}"
            + (f"{interval_text(gain, 'gain', '+'):<25}{gain['holm_p']:>8.2g}" if gain else "")
        )
    lines.append(
        f"gain: difference to {result['baseline_arm']} at the same label budget; groups resampled"
    )
    return "\n".join(line.rstrip() for line in lines)


def mean_auc(
    training: pd.DataFrame, classes: Sequence[str], draws: int, rng: np.random.Generator
) -> tuple[float, np.ndarray, float]:
    """Mean AUC over classes and seeds; its bootstrap draws (D,); SD of the seeds' AUC.

    Args:
        training: ``case_id``, ``group_id``, ``seed``, ``truth`` and ``p_<class>`` in [0, 1].
        classes: the classes; of two the second is the positive one.
        draws: of the bootstrap over groups.
        rng: what draws them.

    A class that no case is of, or every case, is left out, of a draw too; NaN if none remains.
    """
    cases = training.drop_duplicates("case_id").sort_values("case_id")
    truth, groups = cases["truth"].to_numpy(), cases["group_id"].to_numpy()
    taken_DN = drawn_groups(groups, draws, rng)
    ones_1N = np.ones((1, len(cases)))
    means, drawn, of_seeds = [], [], []
    for positive in classes[1:] if len(classes) == 2 else classes:
        is_positive = truth == positive
        if not is_positive.any() or is_positive.all():
            continue
        scores_NS = training.pivot_table(
            index="case_id", columns="seed", values=f"p_{positive}", sort=True
        ).to_numpy()
        wins_S = [_wins(scores_N[is_positive], scores_N[~is_positive]) for scores_N in scores_NS.T]
        wins = np.mean(wins_S, axis=0)
        means.append(_share(wins, is_positive, ones_1N)[0])
        drawn.append(_share(wins, is_positive, taken_DN))
        of_seeds.append([each.mean() for each in wins_S])
    if not means:
        return np.nan, np.full(len(taken_DN), np.nan), np.nan
    known = ~np.isnan(drawn)
    with np.errstate(invalid="ignore"):
        drawn_D = np.where(known, drawn, 0).sum(axis=0) / known.sum(axis=0)
    sd = np.std(np.mean(of_seeds, axis=0), ddof=1) if len(of_seeds[0]) > 1 else np.nan
    return float(np.mean(means)), drawn_D, float(sd)


def _wins(positive_P: np.ndarray, negative_M: np.ndarray) -> np.ndarray:  # noqa: N803
    """(P, M): 1 where the positive case scores higher, 0.5 where both score alike."""
    difference = positive_P[:, None] - negative_M[None]
    return (difference > 0) + 0.5 * (difference == 0)


def _share(wins: np.ndarray, is_positive: np.ndarray, taken_DN: np.ndarray) -> np.ndarray:  # noqa: N803
    """Share of won pairs (D,) when case n is taken ``taken_DN[:, n]`` times."""
    positive, negative = taken_DN[:, is_positive], taken_DN[:, ~is_positive]
    won = ((positive @ wins) * negative).sum(axis=1)
    with np.errstate(invalid="ignore"):
        return won / (positive.sum(axis=1) * negative.sum(axis=1))


def _line_key(record: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(record[name] for name in (*_TRAINING, "collection"))


def _line_order(record: dict[str, Any]) -> tuple[Any, ...]:
    collection = record["collection"]
    return record["target"], collection != "pooled", collection, LabelBudget.parse(record["labels"])


def _interval(name: str, mean: float, drawn: np.ndarray) -> dict[str, float]:
    known = drawn[~np.isnan(drawn)]
    low, high = np.percentile(known, [2.5, 97.5]) if len(known) else (np.nan, np.nan)
    return {f"{name}_mean": mean, f"{name}_low": low, f"{name}_high": high}


def _two_sided_p(gained: np.ndarray) -> float:
    """Twice the smaller share of draws on either side of no gain; at least one draw's share."""
    known = gained[~np.isnan(gained)]
    if not len(known):
        return np.nan
    one_sided = min((known <= 0).mean(), (known >= 0).mean())
    return min(1.0, max(2 * one_sided, 1 / len(known)))


def _counts(rows: pd.DataFrame) -> dict[str, int]:
    return {
        "cases": rows["case_id"].nunique(),
        "groups": rows["group_id"].nunique(),
        "seeds": rows["seed"].nunique(),
    }


def _check_cases(tested: pd.DataFrame) -> None:
    problems = []
    for target, rows in tested.groupby("target"):
        every = set(rows["case_id"])
        for key, training in rows.groupby([*_TRAINING, "seed"]):
            if absent := sorted(every - set(training["case_id"])):
                problems.append(
                    f"{target}, {key[2]}, {key[1]}, seed {key[3]}: {absent[0]} is absent"
                )
    if problems:
        raise InputError(
            "classifiers were not tested on the same cases:\n"
            + "\n".join(f"- {problem}" for problem in problems[:10])
            + "\nmake these tables again with the same cases and splits"
        )
