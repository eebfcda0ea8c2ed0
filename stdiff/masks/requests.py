"""What a user asks of new masks: terms, ranges of what is measured, and how often each term comes.

For example ``pathology=malignant, margin=spiculated|angular, area_fraction=0.02..0.1``.
"""

from __future__ import annotations

import difflib
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from stdiff.files import InputError
from stdiff.lexicon import VOCABULARY, Findings
from stdiff.masks.shape import Shape

# What can be asked as a range; all but the last of the largest lesion.
MEASURED = {
    "area_fraction": (0.0, 1.0),
    "aspect": (0.0, np.inf),
    "axis_ratio": (0.0, 1.0),
    "solidity": (0.0, 1.0),
    "centre_x": (0.0, 1.0),
    "centre_y": (0.0, 1.0),
    "lesion_count": (1.0, np.inf),
}
_EXAMPLE = "pathology=malignant, margin=spiculated|angular, area_fraction=0.02..0.1"


@dataclass(frozen=True)
class Where:
    """Conditions that every mask must meet.

    Attributes:
        terms: findings column → terms, one of which is asked.
        ranges: name in :data:`MEASURED` → (least, greatest) value.
    """

    terms: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    ranges: Mapping[str, tuple[float, float]] = field(default_factory=dict)

    def met_terms(self, findings: Findings) -> int:
        """How many of the conditions on terms the findings meet."""
        return sum(bool(set(terms) & set(_named(findings, c))) for c, terms in self.terms.items())

    def violations(self, shape: Shape, lesion_count: int) -> list[str]:
        """Ranges that a mask is outside of, in words."""
        found = measured(shape, lesion_count)
        return [
            f"{name} {found[name]:.3g} instead of {low:g}..{high:g}"
            for name, (low, high) in self.ranges.items()
            if not low <= found[name] <= high
        ]


def measured(shape: Shape, lesion_count: int) -> dict[str, float]:
    """The values of :data:`MEASURED` of one mask."""
    return {
        "area_fraction": shape.area_fraction,
        "aspect": shape.aspect,
        "axis_ratio": shape.axis_ratio,
        "solidity": shape.solidity,
        "centre_x": shape.centroid[0],
        "centre_y": shape.centroid[1],
        "lesion_count": lesion_count,
    }


def parse_where(text: str) -> Where:
    """Conditions separated by commas: ``column=term|term`` or ``name=low..high``.

    Raises:
        InputError: with every condition that cannot be read.
    """
    terms: dict[str, tuple[str, ...]] = {}
    ranges: dict[str, tuple[float, float]] = {}
    problems = []
    for condition in filter(None, (part.strip() for part in text.split(","))):
        name, equals, value = (part.strip() for part in condition.partition("="))
        if not equals or not value:
            problems.append(f"{condition!r}: expected name=value")
        elif name in terms or name in ranges:
            problems.append(f"{condition!r}: {name} is asked twice; write terms as a|b")
        elif name in VOCABULARY:
            asked = tuple(term.strip() for term in value.split("|"))
            problems += [_no_term(condition, name, t) for t in asked if t not in VOCABULARY[name]]
            terms[name] = asked
        elif name in MEASURED:
            problem, ranges[name] = _range(condition, name, value)
            problems += [problem] if problem else []
        else:
            known = [*VOCABULARY, *MEASURED]
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"expected one of {', '.join(known)}"
            problems.append(f"{condition!r}: {name!r} cannot be asked; {hint}")
    if "normal" in terms.get("pathology", ()):
        problems.append("'pathology=normal': a normal image has no lesion to draw; leave it out")
    if problems:
        listed = "\n".join(f"- {problem}" for problem in problems)
        raise InputError(f"the masks asked for cannot be read, e.g. {_EXAMPLE!r}:\n{listed}")
    return Where(terms, ranges)


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
    """
    weights = np.array(masks, dtype=float)
    for column, strength in balance.items():
        frequency: Counter[str] = Counter()
        for entry, count in zip(findings, masks, strict=True):
            for term in _named(entry, column):
                frequency[term] += count
        if not frequency:
            continue
        mean = sum(frequency.values()) / len(frequency)
        for number, entry in enumerate(findings):
            if terms := _named(entry, column):
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
        if not set(terms) & set(_named(findings, column)):
            term = terms[rng.integers(len(terms))]
            changed[column] = (term,) if column == "margin" else term
    return replace(findings, **changed) if changed else findings


def _named(findings: Findings, column: str) -> tuple[str, ...]:
    value = getattr(findings, column)
    return value if column == "margin" else (value,) if value else ()


def _no_term(condition: str, column: str, term: str) -> str:
    near = difflib.get_close_matches(term, VOCABULARY[column], n=1, cutoff=0.4)
    hint = f"did you mean {near[0]!r}?" if near else f"expected {', '.join(VOCABULARY[column])}"
    return f"{condition!r}: {term!r} is no term of {column}; {hint}"


def _range(condition: str, name: str, value: str) -> tuple[str | None, tuple[float, float]]:
    least, most = MEASURED[name]
    match = re.fullmatch(r"([0-9.eE+-]*?)\.\.([0-9.eE+-]*)", value)
    try:
        low, high = (match[1], match[2]) if match else (value, value)
        asked = (float(low or least), float(high or most))
    except ValueError:
        return f"{condition!r}: expected numbers, e.g. {name}=0.1..0.3", (least, most)
    if not least <= asked[0] <= asked[1] <= most:
        return f"{condition!r}: expected {least:g} <= low <= high <= {most:g}", (least, most)
    return None, asked
