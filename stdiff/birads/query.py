"""Queries for lesion masks: BI-RADS terms, and ranges of what is measured on the mask.

For example ``pathology=malignant, margin=spiculated|angular, area_fraction=0.02..0.1``.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from stdiff.birads.lexicon import VOCABULARY, Findings
from stdiff.runtime.files import InputError

if TYPE_CHECKING:
    from stdiff.birads.shape import Shape

# Measure → (lowest, highest) possible value. All but the last are of the largest lesion.
MEASURE_LIMITS = {
    "area_fraction": (0.0, 1.0),
    "aspect": (0.0, math.inf),
    "axis_ratio": (0.0, 1.0),
    "solidity": (0.0, 1.0),
    "centre_x": (0.0, 1.0),
    "centre_y": (0.0, 1.0),
    "lesion_count": (1.0, math.inf),
}
_EXAMPLE = "pathology=malignant, margin=spiculated|angular, area_fraction=0.02..0.1"


@dataclass(frozen=True)
class Query:
    """Terms and ranges that every mask must match.

    Attributes:
        terms: findings column → accepted terms.
        ranges: name in :data:`MEASURE_LIMITS` → (lowest, highest) accepted value.
    """

    terms: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    ranges: Mapping[str, tuple[float, float]] = field(default_factory=dict)

    def count_matches(self, findings: Findings) -> int:
        """Number of columns in which the findings hold an accepted term."""
        return sum(bool(set(terms) & set(terms_of(findings, c))) for c, terms in self.terms.items())

    def matches(self, findings: Findings) -> bool:
        """Whether the findings hold an accepted term in every column of the query."""
        return self.count_matches(findings) == len(self.terms)

    def range_violations(self, shape: Shape, lesion_count: int) -> list[str]:
        """Measures of a mask outside their range, each with the value and the range."""
        values = measures_of(shape, lesion_count)
        return [
            f"{name} {values[name]:.3g} instead of {low:g}..{high:g}"
            for name, (low, high) in self.ranges.items()
            if not low <= values[name] <= high
        ]


def measures_of(shape: Shape, lesion_count: int) -> dict[str, float]:
    """The values of :data:`MEASURE_LIMITS` of one mask."""
    return {
        "area_fraction": shape.area_fraction,
        "aspect": shape.aspect,
        "axis_ratio": shape.axis_ratio,
        "solidity": shape.solidity,
        "centre_x": shape.centroid[0],
        "centre_y": shape.centroid[1],
        "lesion_count": lesion_count,
    }


def parse_query(text: str) -> Query:
    """Read parts separated by commas: ``column=term|term`` or ``measure=low..high``.

    Raises:
        InputError: with every part that cannot be read.
    """
    terms: dict[str, tuple[str, ...]] = {}
    ranges: dict[str, tuple[float, float]] = {}
    problems = []
    for part in filter(None, (part.strip() for part in text.split(","))):
        name, equals, value = (side.strip() for side in part.partition("="))
        if not equals or not value:
            problems.append(f"{part!r}: expected name=value")
        elif name in terms or name in ranges:
            problems.append(f"{part!r}: {name} occurs twice; write alternative terms as a|b")
        elif name in VOCABULARY:
            terms[name] = tuple(term.strip() for term in value.split("|"))
            problems += [
                f"{part!r}: {term!r} is not a term of {name}; "
                + _hint(term, VOCABULARY[name], cutoff=0.4)
                for term in terms[name]
                if term not in VOCABULARY[name]
            ]
        elif name in MEASURE_LIMITS:
            try:
                ranges[name] = _range(name, value)
            except ValueError as error:
                ranges[name] = MEASURE_LIMITS[name]
                problems.append(f"{part!r}: {error}")
        else:
            hint = _hint(name, [*VOCABULARY, *MEASURE_LIMITS])
            problems.append(f"{part!r}: {name!r} is neither a column nor a measure; {hint}")
    if "normal" in terms.get("pathology", ()):
        problems.append("'pathology=normal': a normal image has no lesion to draw; leave it out")
    if problems:
        listed = "\n".join(f"- {problem}" for problem in problems)
        raise InputError(f"cannot read the mask query; write e.g. {_EXAMPLE!r}:\n{listed}")
    return Query(terms, ranges)


def terms_of(findings: Findings, column: str) -> tuple[str, ...]:
    """The terms of one column; empty if unknown."""
    value = getattr(findings, column)
    return value if column == "margin" else (value,) if value else ()


def _hint(word: str, known: Sequence[str], cutoff: float = 0.6) -> str:
    nearest = difflib.get_close_matches(word, known, n=1, cutoff=cutoff)
    return f"did you mean {nearest[0]!r}?" if nearest else f"expected one of {', '.join(known)}"


def _range(name: str, value: str) -> tuple[float, float]:
    """(low, high) from ``low..high``, ``low..``, ``..high`` or one number."""
    lowest, highest = MEASURE_LIMITS[name]
    match = re.fullmatch(r"([0-9.eE+-]*?)\.\.([0-9.eE+-]*)", value)
    low_text, high_text = match.groups() if match else (value, value)
    try:
        low, high = float(low_text or lowest), float(high_text or highest)
    except ValueError:
        raise ValueError(f"expected numbers, e.g. {name}=0.1..0.3") from None
    if not lowest <= low <= high <= highest:
        raise ValueError(f"expected {lowest:g} <= low <= high <= {highest:g}")
    return low, high
