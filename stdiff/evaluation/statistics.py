"""Statistics of values whose cases come in groups (patients, clusters of near-duplicates)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
from scipy.stats import t, wilcoxon

_DRAWS_AT_ONCE = 1000
# Standard normal quantiles of a two-sided test at 5 % with a power of 80 %.
_DETECTABLE = 1.96 + 0.84
_ROUNDING = 1e-12  # differences of Dice within this range are equal


def group_bootstrap(
    values: np.ndarray, groups: np.ndarray, draws: int, rng: np.random.Generator
) -> tuple[float, float]:
    """95 % percentile interval of the mean of ``values`` (N,), resampling whole groups.

    A draw takes as many groups as there are, with replacement, and averages their cases. The
    interval of a single group is (NaN, NaN).
    """
    return percentile_interval(bootstrap_means(np.asarray(values)[:, None], groups, draws, rng))


def percentile_interval(
    draws_D: np.ndarray,  # noqa: N803
    method: Literal["linear", "inverted_cdf"] = "linear",
) -> tuple[float, float]:
    """95 % percentile interval of bootstrap draws, ignoring NaN; (NaN, NaN) if none is left.

    ``inverted_cdf`` does not interpolate, so that draws may be infinite.
    """
    valid = draws_D[~np.isnan(draws_D)]
    if not len(valid):
        return math.nan, math.nan
    low, high = np.percentile(valid, [2.5, 97.5], method=method)
    return float(low), float(high)


def bootstrap_means(
    values_NK: np.ndarray,  # noqa: N803
    groups: np.ndarray,
    draws: int,
    rng: np.random.Generator,
) -> np.ndarray:
    """Means (draws, K) of the columns, resampling whole groups of rows.

    A draw takes the same groups for all columns. The result is (0, K) for a single group.
    """
    _, codes = np.unique(np.asarray(groups, dtype=str), return_inverse=True)
    counts = np.bincount(codes)
    means = [np.empty((0, values_NK.shape[1]))]
    if len(counts) < 2:
        return means[0]
    sums = np.stack([np.bincount(codes, column) for column in values_NK.T], axis=1)
    for start in range(0, draws, _DRAWS_AT_ONCE):  # limits the memory of the counts
        size = min(_DRAWS_AT_ONCE, draws - start)
        taken = rng.multinomial(len(counts), np.full(len(counts), 1 / len(counts)), size=size)
        means.append((taken @ sums) / (taken @ counts)[:, None])
    return np.concatenate(means)


def bootstrap_counts(groups: np.ndarray, draws: int, rng: np.random.Generator) -> np.ndarray:
    """How often each draw takes each row (draws, N), resampling whole groups.

    The result is (0, N) for a single group.
    """
    _, codes = np.unique(np.asarray(groups, dtype=str), return_inverse=True)
    count = codes.max() + 1
    if count < 2:
        return np.empty((0, len(codes)))
    return rng.multinomial(count, np.full(count, 1 / count), size=draws)[:, codes].astype(float)


def interval_columns(name: str, mean: float, interval: tuple[float, float]) -> dict[str, float]:
    """``<name>_mean``, ``<name>_low`` and ``<name>_high`` of a record."""
    return {f"{name}_mean": mean, f"{name}_low": interval[0], f"{name}_high": interval[1]}


def interval_text(record: Mapping[str, Any], name: str, sign: str) -> str:
    """Mean and interval of ``<name>_mean``, ``_low`` and ``_high``; ``sign`` is "+" or empty."""
    mean, low, high = (record[f"{name}_{part}"] for part in ("mean", "low", "high"))
    if low is None:
        return f"{mean:{sign}.3f} [one group]"
    return f"{mean:{sign}.3f} [{low:{sign}.3f}, {high:{sign}.3f}]"


def none_if_nan(value: float) -> float | None:
    """The value as JSON can hold it: null instead of NaN."""
    return None if math.isnan(value) else float(value)


def holm(p_values: np.ndarray) -> np.ndarray:
    """P values adjusted for multiple tests (Holm 1979, Scand. J. Statist. 6:65-70).

    Written here because scipy has no Holm correction and statsmodels would be a new dependency.
    """
    order = np.argsort(p_values)
    stepped = p_values[order] * np.arange(len(p_values), 0, -1)
    adjusted = np.empty(len(p_values))
    adjusted[order] = np.minimum(1, np.maximum.accumulate(stepped))
    return adjusted


def signed_rank_p(differences: np.ndarray) -> float:
    """Two-sided p of the Wilcoxon signed-rank test with Pratt's zeros; 1 if all are zero."""
    if not np.any(differences):
        return 1.0
    return float(wilcoxon(differences, zero_method="pratt").pvalue)


def bootstrap_p(draws_D: np.ndarray) -> float:  # noqa: N803
    """Two-sided p of a difference: twice the smaller share of draws on either side of zero.

    At least the share of one draw; NaN draws are ignored, and the result is NaN if none is left.
    """
    valid = draws_D[~np.isnan(draws_D)]
    if not len(valid):
        return math.nan
    one_sided = min((valid <= 0).mean(), (valid >= 0).mean())
    return min(1.0, max(2 * one_sided, 1 / len(valid)))


def effect_size(differences: np.ndarray) -> float:
    """Cohen's d of paired differences: mean over standard deviation.

    NaN for fewer than two differences or if all are equal.
    """
    if len(differences) < 2 or np.ptp(differences) < _ROUNDING:
        return math.nan
    return float(np.mean(differences) / np.std(differences, ddof=1))


def minimum_detectable_effect(differences: np.ndarray, groups: np.ndarray) -> float:
    """Smallest true mean of ``differences`` (N,) that this number of groups can detect.

    For a two-sided test at 5 % with a power of 80 %, from the standard error of the mean over
    groups (linearised variance of a ratio; Cochran 1977, section 9A). NaN for a single group.
    """
    _, codes = np.unique(np.asarray(groups, dtype=str), return_inverse=True)
    count = codes.max() + 1
    if count < 2:
        return math.nan
    residuals = np.bincount(codes, np.asarray(differences) - np.mean(differences))
    variance = count / (count - 1) * np.sum(residuals**2) / len(differences) ** 2
    return float(_DETECTABLE * math.sqrt(variance))


def training_noise(trainings: Sequence[tuple[float, int]]) -> float:
    """By how much the means of two arms may differ by the chance of their trainings alone.

    Args:
        trainings: Standard deviation of the repetitions' means, and their number, of either arm.

    Returns:
        Half the width of the 95 % interval of the difference (Student's t); infinite where no arm
        has two repetitions.
    """
    freedom = sum(number - 1 for _, number in trainings)
    if freedom < 1:
        return math.inf
    variance = sum(deviation**2 / number for deviation, number in trainings)
    return float(t.ppf(0.975, freedom) * math.sqrt(variance))
