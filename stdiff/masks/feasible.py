"""Features of the prior that can match a query, checked before any outline is drawn."""

from __future__ import annotations

import numpy as np

from stdiff.birads.lexicon import Findings
from stdiff.birads.query import Query
from stdiff.birads.shape import ROUND_ABOVE_AXIS_RATIO
from stdiff.masks.prior import AREA, CENTRE, ELONGATION, FEATURES, Prior
from stdiff.runtime.files import InputError

# Minimum short over long axis of a lesion drawn for a query.
_MIN_AXIS_RATIO = 0.1


def check_ranges(prior: Prior, query: Query) -> None:
    """Raise an InputError if a range of the query has no overlap with the prior's features."""
    problems = []
    for name, (low, high) in query.ranges.items():
        if name not in FEATURES:
            continue
        lowest, highest = prior.features[name][0], prior.features[name][-1]
        if high < lowest or low > highest:
            nearest = f"{name}=..{highest:g}" if low > highest else f"{name}={lowest:g}.."
            problems.append(
                f"- {name}={low:g}..{high:g}: the prior's masks have {lowest:g} to {highest:g}; "
                f"the nearest possible is {nearest}"
            )
    if problems:
        raise InputError("no mask of the prior can match the query:\n" + "\n".join(problems))


def is_feasible(features: np.ndarray, findings: Findings, query: Query) -> np.ndarray:
    """(N,) bool: rows whose axes, area and centre match; the outline may still not match.

    Args:
        features: (N, features) of :data:`stdiff.masks.prior.FEATURES`.
        findings: terms that the mask must have.
        query: with the ranges that it must be in.
    """
    values = _measures(features)
    fits = np.ones(len(features), dtype=bool)
    if findings.orientation:
        fits &= (values["aspect"] <= 1) == (findings.orientation == "parallel")
    if findings.shape in ("round", "oval"):
        is_round = values["axis_ratio"] > ROUND_ABOVE_AXIS_RATIO
        fits &= is_round == (findings.shape == "round")
    for name, (low, high) in query.ranges.items():
        if name in values:
            fits &= (low <= values[name]) & (values[name] <= high)
    return fits


def forced_features(
    features: np.ndarray, findings: Findings, query: Query, rng: np.random.Generator
) -> np.ndarray:
    """Rows of features changed to match findings and ranges that are rare in the prior."""
    features = features.copy()
    if findings.orientation:
        sign = 1 if findings.orientation == "parallel" else -1
        features[:, 1] = sign * np.abs(features[:, 1])
    if findings.shape == "round":
        features[:, ELONGATION] *= 0.1
    for name, (low, high) in query.ranges.items():
        if name in FEATURES:
            column = features[:, FEATURES.index(name)]
            known = np.clip((low, high), column.min(), column.max())
            column[:] = np.clip(rng.uniform(*known, len(column)), low, high)
        elif name == "axis_ratio":
            wanted = rng.uniform(max(low, _MIN_AXIS_RATIO), max(high, _MIN_AXIS_RATIO))
            long = np.maximum(np.hypot(*features[:, ELONGATION].T), 1e-9)
            features[:, ELONGATION] *= (-np.log(wanted) / long)[:, None]
        elif name == "aspect":
            limits = np.clip((low, high), _MIN_AXIS_RATIO, 1 / _MIN_AXIS_RATIO)
            features[:, ELONGATION] = [-np.log(rng.uniform(*limits)), 0.0]
    return features


def _measures(features: np.ndarray) -> dict[str, np.ndarray]:
    """Measures of a query that follow from the features.

    The variances along the axes are proportional to e^{±ρ}, ρ = ln(long / short axis); those along
    x and y therefore to cosh ρ ± sinh ρ cos 2φ.
    """
    log_ratio = np.hypot(*features[:, ELONGATION].T)
    lean = np.sinh(log_ratio) * features[:, 1] / np.maximum(log_ratio, 1e-9)
    mean = np.cosh(log_ratio)
    return {
        "area_fraction": features[:, AREA],
        "aspect": np.sqrt((mean - lean) / (mean + lean)),
        "axis_ratio": np.exp(-log_ratio),
        "centre_x": features[:, CENTRE.start],
        "centre_y": features[:, CENTRE.start + 1],
    }
