"""BUS-CoT's report values in terms of the BI-RADS lexicon, where the mapping is sound.

In :data:`TERMS`, None marks a known value without a lexicon term. A value outside the table is
flagged ``unknown_term:<field>=<value>`` and never guessed.

Shape and orientation occur only in sentences of ``reasoning_response``, such as "This lesion is
not parallel, has indistinct margins and irregular shape, ...". The margins there repeat the fields
and are not read.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

from stdiff.birads.lexicon import BIRADS, ORIENTATIONS, PATHOLOGIES, SHAPES, Findings
from stdiff.datasets.cells import value_of
from stdiff.datasets.raw import unknown_term

_IN_A_MASS = ("calcifications", "in a mass")

TERMS: dict[str, dict[str, tuple[str, str] | None]] = {
    "EchoCharacteristics": {
        "NoEcho": ("echo_pattern", "anechoic"),
        "LowEcho": ("echo_pattern", "hypoechoic"),
        "SlightlyLowEcho": ("echo_pattern", "hypoechoic"),
        "Isoechoic": ("echo_pattern", "isoechoic"),
        "HighEcho": ("echo_pattern", "hyperechoic"),
        "HeterogeneousEcho": ("echo_pattern", "heterogeneous"),
        "CysticSolidMixedEcho": ("echo_pattern", "complex cystic and solid"),
    },
    # A report describes one lesion, so its calcifications lie in that mass.
    "LesionCalcificationFeatures": {
        "NoCalcification": ("calcifications", "none"),
        "Microcalcification": _IN_A_MASS,
        "MultipleCalcifications": _IN_A_MASS,
        "MultipleClusteredMicrocalcifications": _IN_A_MASS,
        "CoarseCalcification": _IN_A_MASS,
        "SuspectedCalcification": None,
    },
    # An unclear boundary is the lexicon's indistinct margin. A clear one is the 4th edition's
    # 'lesion boundary', not a margin; circumscribed also needs a regular edge (see _terms).
    "LesionBoundary": {
        "BoundaryClear": None,
        "BoundaryFairlyClear": None,
        "BoundarySomewhatUnclear": None,
        "BoundaryUnclear": ("margin", "indistinct"),
    },
    # An irregular edge may be angular, microlobulated or spiculated: no single term fits.
    "LesionEdge": {"Regular": None, "PartiallyRegular": None, "Irregular": None},
    "BIRADS": {category: ("birads", category) for category in BIRADS},
}
# Of 'imagemodality', which one copy lists: a part of the value → flag; B-mode needs none.
_MODALITIES = {
    "b-mode": None,
    "bmode": None,
    "grey": None,
    "gray": None,
    "doppler": "doppler",
    "cdfi": "doppler",
    "elasto": "elastography",
    "contrast": "contrast_enhanced",
    "ceus": "contrast_enhanced",
}
_IN_SMALL_LETTERS = {
    field: {value.lower(): term for value, term in values.items()}
    for field, values in TERMS.items()
}
# Further words would qualify the term ("parallel in part"), so punctuation or "and" must follow.
_ORIENTATION = re.compile(r"\blesion is (\w+ )?parallel(?: to the skin)?\s*(?=[,.;]|and\b|$)")
_SHAPE = re.compile(r"(?<!not )(?:\bhas|\bhave|\band|,) (?:an? )?(\w+) shape\b")


def findings_of(
    pathology_histology: Any, reports: Sequence[Any]
) -> tuple[Findings, tuple[str, ...]]:
    """Findings of an image with one report per lesion, and flags for unknown values.

    A term is kept if all lesions of the image agree on it.
    """
    per_lesion = [_terms(report) for report in reports if isinstance(report, dict)]
    terms: dict[str, str] = {}
    for column in {column for lesion, _ in per_lesion for column in lesion}:
        values = {lesion.get(column) for lesion, _ in per_lesion}
        if len(values) == 1:
            terms[column] = values.pop()
    flags = {flag for _, lesion_flags in per_lesion for flag in lesion_flags}
    pathologies = {
        str(value).strip().lower() for value in _leaves(pathology_histology, "pathology")
    }
    flags |= {unknown_term("pathology", p) for p in pathologies - set(PATHOLOGIES)}
    if len(pathologies) == 1 and not pathologies - set(PATHOLOGIES):
        terms["pathology"] = pathologies.pop()
    margin = terms.pop("margin", None)
    return Findings(**terms, margin=(margin,) if margin else ()), tuple(sorted(flags))


def modality_flags(entry: dict[str, Any]) -> tuple[str, ...]:
    """``doppler``, ``elastography`` or the like for an image that is not plain B-mode."""
    fields = {re.sub(r"[_ ]", "", name).lower(): name for name in entry}
    value = str(entry.get(fields.get("imagemodality", "")) or "").strip()
    found = [flag for part, flag in _MODALITIES.items() if part in value.lower()]
    if value and not found:
        return (unknown_term("imagemodality", value),)
    return tuple(sorted({flag for flag in found if flag}))


def histology_of(pathology_histology: Any) -> str | None:
    """The histologies named at any depth, joined by '; '."""
    return "; ".join(sorted({str(v) for v in _leaves(pathology_histology, "histology")})) or None


def _terms(report: dict[str, Any]) -> tuple[dict[str, str], set[str]]:
    found: dict[str, str] = {}
    flags: set[str] = set()
    stated = {field: value_of(report.get(field)).lower() for field in TERMS}
    for field, value in stated.items():
        if not value:
            continue
        if value not in _IN_SMALL_LETTERS[field]:
            flags.add(unknown_term(field, report[field]))
        elif term := _IN_SMALL_LETTERS[field][value]:
            found[term[0]] = term[1]
    if (stated["LesionEdge"], stated["LesionBoundary"]) == ("regular", "boundaryclear"):
        found["margin"] = "circumscribed"
    reasoning = report.get("reasoning_response")
    return found | (_reasoned(reasoning) if isinstance(reasoning, str) else {}), flags


def _reasoned(text: str) -> dict[str, str]:
    """Orientation and shape, each if the sentences name exactly one lexicon term for it."""
    text = " ".join(text.lower().replace("non-parallel", "not parallel").split())
    orientations = {f"{match[1] or ''}parallel" for match in _ORIENTATION.finditer(text)}
    shapes = {match[1] for match in _SHAPE.finditer(text)}
    found = {}
    for column, named, terms in (
        ("orientation", orientations, ORIENTATIONS),
        ("shape", shapes, SHAPES),
    ):
        if len(named) == 1 and named <= set(terms):
            found[column] = named.pop()
    return found


def _leaves(node: Any, name: str) -> Iterable[Any]:
    """Values under the key ``name`` at any depth; the publication nests by subtype."""
    if isinstance(node, dict):
        for key, value in node.items():
            if key == name and not isinstance(value, (dict, list)):
                if value not in (None, ""):
                    yield value
            else:
                yield from _leaves(value, name)
    elif isinstance(node, list):
        for value in node:
            yield from _leaves(value, name)
