"""Which features can have what is asked for, before any outline is drawn of them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from stdiff.birads.lexicon import Findings
from stdiff.birads.query import Where
from stdiff.birads.shape import ROUND_ABOVE_AXIS_RATIO
from stdiff.masks.prior import FEATURES, SHARP_MARGINS, Prior
from stdiff.runtime.files import InputError

AREA, ELONGATION, CENTRE = 0, slice(1, 3), slice(3, 5)
# Longer and slimmer than that no lesion is drawn.
_LEAST_AXIS_RATIO = 0.1


def check_ranges(prior: Prior, where: Where) -> None:
    """Raise an InputError if a range lies outside of all that the prior knows."""
    problems = []
    for name, (low, high) in where.ranges.items():
        if name not in FEATURES:
            continue
        least, most = prior.features[name][0], prior.features[name][-1]
        if high < least or low > most:
            nearest = f"{name}=..{most:g}" if low > most else f"{name}={least:g}.."
            problems.append(
                f"- {name}={low:g}..{high:g}: the prior's masks have {least:g} to {most:g}; "
                f"the nearest possible is {nearest}"
            )
    if problems:
        raise InputError("these masks cannot be had:\n" + "\n".join(problems))


def reconciled(findings: Findings, where: Where) -> Findings:
    """The findings without a contradiction between what was asked and what was not.

    What was not asked for gives way. An outline with sharp features is irregular; orientation is
    another name for an aspect above or below 1, and round for axes that are nearly equal.
    """
    free = {name for name in ("shape", "margin", "orientation") if name not in where.terms}
    low, high = where.ranges.get("aspect", (0.0, np.inf))
    if findings.orientation and "orientation" in free and (low > 1 or high < 1):
        findings = replace(findings, orientation="not parallel" if low > 1 else "parallel")
    low, high = where.ranges.get("axis_ratio", (0.0, 1.0))
    if "shape" in free and findings.shape == "oval" and low > ROUND_ABOVE_AXIS_RATIO:
        findings = replace(findings, shape="round")
    if "shape" in free and findings.shape == "round" and high < ROUND_ABOVE_AXIS_RATIO:
        findings = replace(findings, shape="oval")
    if not set(SHARP_MARGINS) & set(findings.margin):
        return findings
    if "shape" in free and findings.shape:
        return replace(findings, shape="irregular")
    if "margin" in free and findings.shape in ("oval", "round"):
        return replace(findings, margin=("circumscribed",))
    return findings


def can_be(features: np.ndarray, findings: Findings, where: Where) -> np.ndarray:
    """(N,) bool: rows with the axes, area and centre asked for; the outline decides on the rest.

    Args:
        features: (N, features) of :data:`stdiff.masks.prior.FEATURES`.
        findings: terms that the mask shall have.
        where: ranges that it shall be in.
    """
    values = _measured(features)
    fits = np.ones(len(features), dtype=bool)
    if findings.orientation:
        fits &= (values["aspect"] <= 1) == (findings.orientation == "parallel")
    if findings.shape in ("round", "oval"):
        is_round = values["axis_ratio"] > ROUND_ABOVE_AXIS_RATIO
        fits &= is_round == (findings.shape == "round")
    for name, (low, high) in where.ranges.items():
        if name in values:
            fits &= (low <= values[name]) & (values[name] <= high)
    return fits


def set_right(
    features: np.ndarray, findings: Findings, where: Where, rng: np.random.Generator
) -> np.ndarray:
    """Rows with what is asked written over what was drawn: it is rare, not impossible."""
    features = features.copy()
    if findings.orientation:
        sign = 1 if findings.orientation == "parallel" else -1
        features[:, 1] = sign * np.abs(features[:, 1])
    if findings.shape == "round":
        features[:, ELONGATION] *= 0.1
    for name, (low, high) in where.ranges.items():
        if name in FEATURES:
            column = features[:, FEATURES.index(name)]
            known = np.clip((low, high), column.min(), column.max())
            column[:] = np.clip(rng.uniform(*known, len(column)), low, high)
        elif name == "axis_ratio":
            wanted = rng.uniform(max(low, _LEAST_AXIS_RATIO), max(high, _LEAST_AXIS_RATIO))
            long = np.maximum(np.hypot(*features[:, ELONGATION].T), 1e-9)
            features[:, ELONGATION] *= (-np.log(wanted) / long)[:, None]
        elif name == "aspect":
            limits = np.clip((low, high), _LEAST_AXIS_RATIO, 1 / _LEAST_AXIS_RATIO)
            features[:, ELONGATION] = [-np.log(rng.uniform(*limits)), 0.0]
    return features


def _measured(features: np.ndarray) -> dict[str, np.ndarray]:
    """What the features fix of a mask, by the names that ranges have.

    The variances along the axes are as e^{±ρ}, ρ = ln(long / short axis), those along x and y
    therefore as cosh ρ ± sinh ρ cos 2φ.
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
