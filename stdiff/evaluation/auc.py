"""AUC of classifiers by arm and gains over the baseline arm, from per-case tables.

The area under the ROC curve is the share of pairs of a positive and a negative case that the score
ranks correctly, ties counting half (Hanley & McNeil 1982). It is averaged over repetitions, and for
more than two classes over the one-against-rest AUC of each class. Intervals come from a bootstrap
over groups with the same draws for every arm; DeLong's variance would treat the cases of a patient
as independent.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from stdiff.config.run import Config
from stdiff.downstream.arms import real_arm
from stdiff.downstream.classes import CLASSES
from stdiff.evaluation.comparison import (
    by_collection,
    check_same_cases,
    comparison_lines,
    counts,
    json_records,
    read_trainings,
    with_holm_p,
    write_result,
)
from stdiff.evaluation.statistics import (
    bootstrap_counts,
    bootstrap_p,
    interval_columns,
    percentile_interval,
)
from stdiff.runtime.randomness import generator

_TRAINING = ["target", "labels", "arm"]


def evaluate_auc(tables: Sequence[Path], out: Path, *, config: Config) -> None:
    """Write AUC by arm and gains over the baseline arm as JSON, computed on test lesions.

    Keys: ``baseline_arm``; lists of records ``by_arm`` (``auc_mean``, ``auc_low``, ``auc_high``,
    ``auc_seed_sd``), ``gains`` (``gain_mean``, ``gain_low``, ``gain_high``, ``bootstrap_p``,
    ``holm_p``, corrected over all rows of a collection) and ``failures``.

    Raises:
        InputError: a table is missing, all trainings failed, or they were not tested on the same
            cases.
    """
    rows, failures = read_trainings(tables)
    tested = rows[rows["role"] == "test"]
    check_same_cases(tested, _TRAINING)
    baseline = real_arm(config)
    draws, seed = config.evaluation.bootstrap_draws, config.seed
    by_arm, gains = [], []
    for target, target_rows in tested.groupby("target"):
        for collection, part in by_collection(target_rows):
            trainings = dict(list(part.groupby(_TRAINING)))
            measured = {
                key: mean_auc(
                    training,
                    CLASSES[target],
                    draws,
                    # All arms share the resampled groups.
                    generator(seed, f"auc interval {target} {collection}"),
                )
                for key, training in trainings.items()
            }
            for key, (auc, drawn_D, sd) in measured.items():
                named = dict(zip(_TRAINING, key, strict=True)) | {"collection": collection}
                named |= counts(trainings[key])
                interval = percentile_interval(drawn_D)
                by_arm.append(named | interval_columns("auc", auc, interval) | {"auc_seed_sd": sd})
                reference = measured.get((*key[:2], baseline))
                if key[2] == baseline or reference is None:
                    continue
                gain_D = drawn_D - reference[1]
                interval = percentile_interval(gain_D)
                gains.append(
                    named
                    | interval_columns("gain", auc - reference[0], interval)
                    | {"bootstrap_p": bootstrap_p(gain_D)}
                )
    result = {
        "baseline_arm": baseline,
        "by_arm": json_records(pd.DataFrame(by_arm)),
        "gains": json_records(with_holm_p(gains, "bootstrap_p")),
        "failures": json_records(failures),
    }
    write_result(result, out)


def auc_table_text(result: dict[str, Any]) -> str:
    """The parsed JSON of :func:`evaluate_auc` as a plain-text table with one line per arm."""
    lines = comparison_lines(result, "target", (11, 16), "auc", "AUC")
    lines.append(
        f"gain: difference to {result['baseline_arm']} at the same label budget; groups resampled"
    )
    return "\n".join(line.rstrip() for line in lines)


def mean_auc(
    training: pd.DataFrame, classes: Sequence[str], draws: int, rng: np.random.Generator
) -> tuple[float, np.ndarray, float]:
    """Mean AUC over classes and repetitions, its bootstrap draws (D,), and the repetitions' SD.

    Args:
        training: ``case_id``, ``group_id``, ``repetition``, ``truth`` and ``p_<class>`` in [0, 1].
        classes: All classes; of two the second is the positive one.
        draws: Draws of the bootstrap over groups.
        rng: Random generator of the bootstrap.

    A class without positive or without negative cases is left out, also of single draws; the result
    is NaN if no class remains.
    """
    cases = training.drop_duplicates("case_id").sort_values("case_id")
    truth, groups = cases["truth"].to_numpy(), cases["group_id"].to_numpy()
    taken_DN = bootstrap_counts(groups, draws, rng)
    once_1N = np.ones((1, len(cases)))
    means, drawn, by_repetition = [], [], []
    for positive in classes[1:] if len(classes) == 2 else classes:
        is_positive = truth == positive
        if not is_positive.any() or is_positive.all():
            continue
        scores_NR = training.pivot_table(
            index="case_id", columns="repetition", values=f"p_{positive}", sort=True
        ).to_numpy()
        wins_R = [_wins(scores_N[is_positive], scores_N[~is_positive]) for scores_N in scores_NR.T]
        wins = np.mean(wins_R, axis=0)
        means.append(_share(wins, is_positive, once_1N)[0])
        drawn.append(_share(wins, is_positive, taken_DN))
        by_repetition.append([wins.mean() for wins in wins_R])
    if not means:
        return np.nan, np.full(len(taken_DN), np.nan), np.nan
    known = ~np.isnan(drawn)
    with np.errstate(invalid="ignore"):
        drawn_D = np.where(known, drawn, 0).sum(axis=0) / known.sum(axis=0)
    sd = np.std(np.mean(by_repetition, axis=0), ddof=1) if len(by_repetition[0]) > 1 else np.nan
    return float(np.mean(means)), drawn_D, float(sd)


def _wins(positive_P: np.ndarray, negative_M: np.ndarray) -> np.ndarray:  # noqa: N803
    """(P, M): 1 where the positive case scores higher, 0.5 where both score alike."""
    difference = positive_P[:, None] - negative_M[None]
    return (difference > 0) + 0.5 * (difference == 0)


def _share(wins: np.ndarray, is_positive: np.ndarray, taken_DN: np.ndarray) -> np.ndarray:  # noqa: N803
    """Share of won pairs (D,) when draw d takes case n ``taken_DN[d, n]`` times."""
    positive, negative = taken_DN[:, is_positive], taken_DN[:, ~is_positive]
    won = ((positive @ wins) * negative).sum(axis=1)
    with np.errstate(invalid="ignore"):
        return won / (positive.sum(axis=1) * negative.sum(axis=1))
