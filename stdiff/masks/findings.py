"""Findings of new masks: which match a query, and how often each is drawn."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from stdiff.birads.lexicon import VOCABULARY, Findings
from stdiff.birads.query import Query, terms_of
from stdiff.birads.shape import ROUND_ABOVE_AXIS_RATIO
from stdiff.masks.prior import SHARP_MARGINS
from stdiff.runtime.files import InputError


def balanced_probabilities(
    findings: Sequence[Findings], masks: Sequence[float], balance: Mapping[str, float]
) -> np.ndarray:
    """Probability with which each entry of a table of findings is drawn; they add up to 1.

    Args:
        findings: the entries.
        masks: number of masks with the findings of each entry.
        balance: column → strength in [0, 1]: 0 keeps the frequencies of its terms, 1 makes all
            terms that occur equally frequent. Entries without a term keep their frequency; of
            several margins the rarest counts.

    Raises:
        InputError: a column that is not of findings, or a strength outside [0, 1].
    """
    if bad := {k: v for k, v in balance.items() if k not in VOCABULARY or not 0 <= v <= 1}:
        raise InputError(
            f"balance {bad}: expected strengths from 0 to 1 of {', '.join(VOCABULARY)}"
        )
    weights = np.array(masks, dtype=float)
    for column, strength in balance.items():
        terms = [terms_of(entry, column) for entry in findings]
        frequency: Counter[str] = Counter()
        for entry_terms, count in zip(terms, masks, strict=True):
            frequency.update(dict.fromkeys(entry_terms, count))
        mean = frequency.total() / max(1, len(frequency))
        for number, entry_terms in enumerate(terms):
            if entry_terms:
                weights[number] *= (mean / min(frequency[t] for t in entry_terms)) ** strength
    return weights / weights.sum()


def best_matches(findings: Sequence[Findings], query: Query) -> list[int]:
    """Indices of the entries that match the query in most columns."""
    counts = [query.count_matches(entry) for entry in findings]
    most = max(counts)
    return [number for number, count in enumerate(counts) if count == most]


def with_query_terms(findings: Findings, query: Query, rng: np.random.Generator) -> Findings:
    """The findings with a random term of the query in each column that does not match it yet."""
    changed: dict[str, str | tuple[str, ...]] = {}
    for column, terms in query.terms.items():
        if not set(terms) & set(terms_of(findings, column)):
            term = terms[rng.integers(len(terms))]
            changed[column] = (term,) if column == "margin" else term
    return replace(findings, **changed)


def without_contradictions(findings: Findings, query: Query) -> Findings:
    """The findings with those terms changed that the query leaves open and contradicts.

    A lesion with a sharp margin is irregular; orientation follows from an aspect above or below 1,
    and round or oval from the ratio of the axes.
    """
    is_open = {name: name not in query.terms for name in ("shape", "margin", "orientation")}
    low, high = query.ranges.get("aspect", (0.0, np.inf))
    if findings.orientation and is_open["orientation"] and (low > 1 or high < 1):
        findings = replace(findings, orientation="not parallel" if low > 1 else "parallel")
    low, high = query.ranges.get("axis_ratio", (0.0, 1.0))
    if is_open["shape"] and findings.shape == "oval" and low > ROUND_ABOVE_AXIS_RATIO:
        findings = replace(findings, shape="round")
    if is_open["shape"] and findings.shape == "round" and high < ROUND_ABOVE_AXIS_RATIO:
        findings = replace(findings, shape="oval")
    if not set(SHARP_MARGINS) & set(findings.margin):
        return findings
    if is_open["shape"] and findings.shape:
        return replace(findings, shape="irregular")
    if is_open["margin"] and findings.shape in ("oval", "round"):
        return replace(findings, margin=("circumscribed",))
    return findings
