"""Which findings new masks are drawn with: those that meet the conditions, as often as asked."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from stdiff.birads.lexicon import VOCABULARY, Findings
from stdiff.birads.query import Where, terms_of
from stdiff.runtime.files import InputError


def probabilities(
    findings: Sequence[Findings], masks: Sequence[float], balance: Mapping[str, float]
) -> np.ndarray:
    """How likely each entry of a table of findings is to be drawn; they add up to 1.

    Args:
        findings: the entries.
        masks: how many masks each stands for.
        balance: column → strength in [0, 1]: 0 leaves its terms as frequent as they are, 1 makes
            all that occur equally frequent. Entries without a term keep their frequency; of
            several margins the rarest counts.

    Raises:
        InputError: no column of findings, or no strength in [0, 1].
    """
    if bad := {k: v for k, v in balance.items() if k not in VOCABULARY or not 0 <= v <= 1}:
        raise InputError(
            f"balance {bad}: expected strengths from 0 to 1 of {', '.join(VOCABULARY)}"
        )
    weights = np.array(masks, dtype=float)
    for column, strength in balance.items():
        frequency: Counter[str] = Counter()
        for entry, count in zip(findings, masks, strict=True):
            for term in terms_of(entry, column):
                frequency[term] += count
        if not frequency:
            continue
        mean = sum(frequency.values()) / len(frequency)
        for number, entry in enumerate(findings):
            if terms := terms_of(entry, column):
                rarest = min(frequency[term] for term in terms)
                weights[number] *= (mean / rarest) ** strength
    return weights / weights.sum()


def nearest_entries(findings: Sequence[Findings], where: Where) -> tuple[list[int], int]:
    """(entries that meet most of the conditions on terms, how many they meet)."""
    met = [where.met_terms(entry) for entry in findings]
    most = max(met)
    return [number for number, count in enumerate(met) if count == most], most


def with_terms(findings: Findings, where: Where, rng: np.random.Generator) -> Findings:
    """The findings with a term of each condition that they do not meet yet."""
    changed: dict[str, str | tuple[str, ...]] = {}
    for column, terms in where.terms.items():
        if not set(terms) & set(terms_of(findings, column)):
            term = terms[rng.integers(len(terms))]
            changed[column] = (term,) if column == "margin" else term
    return replace(findings, **changed) if changed else findings
