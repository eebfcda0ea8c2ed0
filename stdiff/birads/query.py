"""What every mask must be like, as a user writes it: terms, and ranges of what is measured.

For example ``pathology=malignant, margin=spiculated|angular, area_fraction=0.02..0.1``.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from stdiff.birads.lexicon import VOCABULARY, Findings
from stdiff.runtime.files import InputError


class Measures(Protocol):
    """What a mask must tell of its largest lesion, see :class:`stdiff.birads.shape.Shape`."""

    area_fraction: float
    aspect: float
    axis_ratio: float
    solidity: float
    centroid: tuple[float, float]


# What can be asked as a range; all but the last of the largest lesion.
MEASURED = {
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
        return sum(bool(set(terms) & set(terms_of(findings, c))) for c, terms in self.terms.items())

    def violations(self, shape: Measures, lesion_count: int) -> list[str]:
        """Ranges that a mask is outside of, in words."""
        found = measured(shape, lesion_count)
        return [
            f"{name} {found[name]:.3g} instead of {low:g}..{high:g}"
            for name, (low, high) in self.ranges.items()
            if not low <= found[name] <= high
        ]


def measured(shape: Measures, lesion_count: int) -> dict[str, float]:
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


def terms_of(findings: Findings, column: str) -> tuple[str, ...]:
    """The terms of one column, none where it is unknown."""
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
