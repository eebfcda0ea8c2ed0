"""Statistics of paired differences whose cases come in groups (patients, near-duplicates)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from scipy.stats import wilcoxon

_DRAWS_AT_ONCE = 1000
# Of the normal distribution: a two-sided test at 5 % that finds a true difference with 80 %.
_FOUND = 1.96 + 0.84
_ROUNDING = 1e-12  # differences of Dice that spread no further are equal


def group_bootstrap(
    values: np.ndarray, groups: np.ndarray, draws: int, rng: np.random.Generator
) -> tuple[float, float]:
    """95 % percentile interval of the mean of ``values`` (N,) when whole groups are resampled.

    A draw takes as many groups as there are, with replacement, and averages their cases. With a
    single group there is nothing to resample: the interval is (NaN, NaN).
    """
    means = drawn_means(np.asarray(values)[:, None], groups, draws, rng)
    if not len(means):
        return math.nan, math.nan
    low, high = np.percentile(means, [2.5, 97.5])
    return float(low), float(high)


def drawn_means(
    values_NK: np.ndarray,  # noqa: N803
    groups: np.ndarray,
    draws: int,
    rng: np.random.Generator,
) -> np.ndarray:
    """Means (draws, K) of the columns when whole groups of rows are drawn again.

    A draw takes the same groups for all columns. No draw (0, K) of a single group.
    """
    _, codes = np.unique(np.asarray(groups, dtype=str), return_inverse=True)
    counts = np.bincount(codes)
    means = [np.empty((0, values_NK.shape[1]))]
    if len(counts) < 2:
        return means[0]
    sums = np.stack([np.bincount(codes, column) for column in values_NK.T], axis=1)
    for start in range(0, draws, _DRAWS_AT_ONCE):  # bounds the memory of the counts
        size = min(_DRAWS_AT_ONCE, draws - start)
        taken = rng.multinomial(len(counts), np.full(len(counts), 1 / len(counts)), size=size)
        means.append((taken @ sums) / (taken @ counts)[:, None])
    return np.concatenate(means)


def drawn_groups(groups: np.ndarray, draws: int, rng: np.random.Generator) -> np.ndarray:
    """How often each row (draws, N) is taken when whole groups are drawn again.

    No draw (0, N) of a single group.
    """
    _, codes = np.unique(np.asarray(groups, dtype=str), return_inverse=True)
    count = codes.max() + 1
    if count < 2:
        return np.empty((0, len(codes)))
    return rng.multinomial(count, np.full(count, 1 / count), size=draws)[:, codes].astype(float)


def known(value: float) -> float | None:
    """JSON knows no NaN: null where there is no value."""
    return None if math.isnan(value) else float(value)


def interval_text(record: Mapping[str, Any], name: str, sign: str) -> str:
    """Mean and interval of ``<name>_mean``, ``_low`` and ``_high``; ``sign`` is "+" or empty."""
    mean, low, high = (record[f"{name}_{part}"] for part in ("mean", "low", "high"))
    if low is None:
        return f"{mean:{sign}.3f} [one group]"
    return f"{mean:{sign}.3f} [{low:{sign}.3f}, {high:{sign}.3f}]"


def holm(p_values: np.ndarray) -> np.ndarray:
    """P values adjusted for their number (Holm 1979, Scand. J. Statist. 6:65-70)."""
    order = np.argsort(p_values)
    stepped = p_values[order] * np.arange(len(p_values), 0, -1)
    adjusted = np.empty(len(p_values))
    adjusted[order] = np.minimum(1, np.maximum.accumulate(stepped))
    return adjusted


def signed_rank_p(differences: np.ndarray) -> float:
    """Two-sided p of the Wilcoxon signed-rank test, zeros ranked (Pratt); 1 if all are zero."""
    if not np.any(differences):
        return 1.0
    return float(wilcoxon(differences, zero_method="pratt").pvalue)


def effect_size(differences: np.ndarray) -> float:
    """Cohen's d of paired differences: their mean over their standard deviation.

    NaN of fewer than two, or where all are equal.
    """
    if len(differences) < 2 or np.ptp(differences) < _ROUNDING:
        return math.nan
    return float(np.mean(differences) / np.std(differences, ddof=1))


def minimum_detectable_effect(differences: np.ndarray, groups: np.ndarray) -> float:
    """The smallest true mean of ``differences`` (N,) that so many groups would show.

    With a two-sided test at 5 % and a power of 80 %, from the standard error of the mean with
    whole groups as its unit (the linearised variance of a ratio; Cochran 1977, section 9A).
    NaN with a single group.
    """
    _, codes = np.unique(np.asarray(groups, dtype=str), return_inverse=True)
    count = codes.max() + 1
    if count < 2:
        return math.nan
    residuals = np.bincount(codes, np.asarray(differences) - np.mean(differences))
    variance = count / (count - 1) * np.sum(residuals**2) / len(differences) ** 2
    return float(_FOUND * math.sqrt(variance))
