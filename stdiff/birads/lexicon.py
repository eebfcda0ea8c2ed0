"""The BI-RADS ultrasound lexicon (5th edition) and the captions made of its terms.

A caption is one line such as::

    BI-RADS 4A, malignant: irregular shape, not parallel orientation, indistinct and
    spiculated margin, hypoechoic, posterior shadowing, calcifications in a mass

Everything in it is optional; the empty caption says nothing (and is the unconditional one).
``parse(render(findings)) == findings`` holds for every combination of terms.
"""

from __future__ import annotations

import difflib
import re
from dataclasses import asdict, dataclass, fields
from typing import Any

from stdiff.runtime.files import InputError

PATHOLOGIES = ("normal", "benign", "malignant")
BIRADS = ("0", "1", "2", "3", "4", "4A", "4B", "4C", "5", "6")
SHAPES = ("oval", "round", "irregular")
ORIENTATIONS = ("parallel", "not parallel")
MARGINS = ("circumscribed", "indistinct", "angular", "microlobulated", "spiculated")
ECHO_PATTERNS = (
    "anechoic",
    "hyperechoic",
    "complex cystic and solid",
    "hypoechoic",
    "isoechoic",
    "heterogeneous",
)
POSTERIOR_FEATURES = ("no posterior features", "enhancement", "shadowing", "combined pattern")
CALCIFICATIONS = ("in a mass", "outside of a mass", "intraductal", "none")

# Findings columns with one term each; `margin` holds several and `birads` is matched by itself.
VOCABULARY: dict[str, tuple[str, ...]] = {
    "pathology": PATHOLOGIES,
    "birads": BIRADS,
    "shape": SHAPES,
    "orientation": ORIENTATIONS,
    "margin": MARGINS,
    "echo_pattern": ECHO_PATTERNS,
    "posterior_features": POSTERIOR_FEATURES,
    "calcifications": CALCIFICATIONS,
}

# Spellings people use for the same term, hyphens read as blanks.
_SPELLINGS = {
    "taller than wide": "not parallel orientation",
    "non parallel": "not parallel orientation",
    "non parallel orientation": "not parallel orientation",
    "vertical orientation": "not parallel orientation",
    "wider than tall": "parallel orientation",
    "horizontal orientation": "parallel orientation",
    "well circumscribed margin": "circumscribed margin",
    "well circumscribed": "circumscribed margin",
    "well defined margin": "circumscribed margin",
    "ill defined margin": "indistinct margin",
    "no posterior acoustic features": "no posterior features",
    "posterior acoustic shadowing": "posterior shadowing",
    "posterior acoustic enhancement": "posterior enhancement",
    "acoustic shadowing": "posterior shadowing",
    "acoustic enhancement": "posterior enhancement",
    "combined posterior features": "combined posterior pattern",
    "echo free": "anechoic",
    "complex cystic solid": "complex cystic and solid",
    "complex cystic/solid": "complex cystic and solid",
    "no calcification": "no calcifications",
    "calcifications in mass": "calcifications in a mass",
    "intraductal calcification": "intraductal calcifications",
}
# Nouns that add nothing to an adjective of the lexicon: "oval shaped mass", "hypoechoic lesion".
_NOUNS = re.compile(r"(?<!in a)(?<!of a)(?<!in) (mass|lesion|tumou?r|echogenicity|echotexture)$")
_SPLIT_WORDS = re.compile(r"\b(hypo|hyper|iso|an|micro) (echoic|lobulated)\b")


class CaptionError(InputError):
    """A caption holds a word that is not in the lexicon."""


@dataclass(frozen=True)
class Findings:
    """BI-RADS terms of one image; ``None`` (or no margin) where unknown."""

    pathology: str | None = None
    birads: str | None = None
    shape: str | None = None
    orientation: str | None = None
    margin: tuple[str, ...] = ()
    echo_pattern: str | None = None
    posterior_features: str | None = None
    calcifications: str | None = None

    def __post_init__(self) -> None:
        for name, terms in VOCABULARY.items():
            value = getattr(self, name)
            for term in value if name == "margin" else (value,):
                if term is not None and term not in terms:
                    raise CaptionError(
                        f"{name}: {term!r} is not a lexicon term; expected "
                        f"one of {', '.join(terms)}"
                    )
        # One order of margins, so that equal findings render to equal captions.
        object.__setattr__(self, "margin", tuple(m for m in MARGINS if m in set(self.margin)))

    @classmethod
    def from_row(cls, row: dict[str, Any]) -> Findings:
        """Findings of a case-table row (missing values may be None or NaN)."""
        values = {f.name: row.get(f.name) for f in fields(cls)}
        clean = {k: v for k, v in values.items() if k != "margin" and isinstance(v, str)}
        margin = values["margin"]
        # pandas gives lists as arrays, and NaN where there is none.
        unknown = margin is None or isinstance(margin, float)
        return cls(**clean, margin=() if unknown else tuple(margin))

    def as_row(self) -> dict[str, Any]:
        """The same terms as case-table columns (``margin`` a list or None)."""
        row = asdict(self)
        row["margin"] = list(self.margin) or None
        return row


def render(findings: Findings) -> str:
    """One-line caption of the findings; the empty string when nothing is known."""
    head = []
    if findings.birads:
        head.append(f"BI-RADS {findings.birads}")
    if findings.pathology:
        head.append(findings.pathology)
    terms = []
    if findings.shape:
        terms.append(f"{findings.shape} shape")
    if findings.orientation:
        terms.append(f"{findings.orientation} orientation")
    if findings.margin:
        terms.append(" and ".join(findings.margin) + " margin")
    if findings.echo_pattern:
        terms.append(findings.echo_pattern)
    if findings.posterior_features in ("enhancement", "shadowing"):
        terms.append(f"posterior {findings.posterior_features}")
    elif findings.posterior_features == "combined pattern":
        terms.append("combined posterior pattern")
    elif findings.posterior_features:
        terms.append(findings.posterior_features)
    if findings.calcifications == "none":
        terms.append("no calcifications")
    elif findings.calcifications == "intraductal":
        terms.append("intraductal calcifications")
    elif findings.calcifications:
        terms.append(f"calcifications {findings.calcifications}")
    return ": ".join(part for part in (", ".join(head), ", ".join(terms)) if part)


def _phrases() -> dict[str, tuple[str, str]]:
    """Every phrase that stands for one term → (column, term)."""
    phrases: dict[str, tuple[str, str]] = {}
    for term in PATHOLOGIES:
        phrases[term] = ("pathology", term)
    for term in SHAPES:
        phrases[term] = phrases[f"{term} shape"] = ("shape", term)
    for term in ORIENTATIONS:
        phrases[term] = phrases[f"{term} orientation"] = ("orientation", term)
    for term in ECHO_PATTERNS:
        phrases[term] = phrases[f"{term} echo pattern"] = ("echo_pattern", term)
    for term in POSTERIOR_FEATURES:
        phrases[term] = ("posterior_features", term)
    for term in ("enhancement", "shadowing"):
        phrases[f"posterior {term}"] = ("posterior_features", term)
    phrases["combined posterior pattern"] = ("posterior_features", "combined pattern")
    phrases["no calcifications"] = ("calcifications", "none")
    phrases["intraductal calcifications"] = ("calcifications", "intraductal")
    for term in ("in a mass", "outside of a mass"):
        phrases[f"calcifications {term}"] = ("calcifications", term)
    return phrases


_PHRASES = _phrases()
_BIRADS_PATTERN = re.compile(r"^bi ?rads ?(?:category|score)? ?(\d) ?([abc]?)$")


def parse(caption: str) -> Findings:
    """Findings named in a caption, tolerant of spelling and order, strict about unknown words.

    Raises:
        CaptionError: for a phrase the lexicon does not know, with the nearest one it does, or
            for two different terms of the same kind.
    """
    found: dict[str, Any] = {}
    margin: list[str] = []
    text = re.sub(r"\s+", " ", caption.strip().lower().rstrip("."))
    # "BI-RADS: 4" and "BI-RADS 4: ..." both use a colon; only the second one separates.
    text = re.sub(r"(bi[- ]?rads(?: category| score)?)\s*:\s*(\d)", r"\1 \2", text)
    for phrase in filter(None, (part.strip() for part in re.split(r"[,:;]", text))):
        column, terms = _read_phrase(phrase, caption)
        if column == "margin":
            margin += terms
        elif found.setdefault(column, terms[0]) != terms[0]:
            raise CaptionError(
                f"caption {caption!r} names two terms for {column}: "
                f"{found[column]!r} and {terms[0]!r}; keep one"
            )
    return Findings(margin=tuple(margin), **found)


def _plain(phrase: str) -> str:
    """A phrase in the lexicon's own spelling, as far as it is a known variant of it."""
    phrase = " ".join(phrase.replace("-", " ").split())
    phrase = _NOUNS.sub("", _SPLIT_WORDS.sub(r"\1\2", phrase))
    phrase = re.sub(r"^(\w+?)(?:ly)? shaped$", r"\1 shape", phrase)
    phrase = re.sub(r"\bmargins$", "margin", phrase)
    return _SPELLINGS.get(phrase, phrase)


def _read_phrase(written: str, caption: str) -> tuple[str, list[str]]:
    phrase = _plain(written)
    if match := _BIRADS_PATTERN.match(phrase):
        if (category := (match[1] + match[2]).upper()) in BIRADS:
            return "birads", [category]
        raise CaptionError(
            f"caption {caption!r}: BI-RADS category {category!r} does not exist; "
            f"expected one of {', '.join(BIRADS)}"
        )
    if phrase in _PHRASES:
        column, term = _PHRASES[phrase]
        return column, [term]
    parts = re.split(r"\s*(?:&| and )\s*", re.sub(r"\s*margin$", "", phrase))
    # "not circumscribed - indistinct" says no more than "indistinct".
    parts = [re.sub(r"^not circumscribed ?", "", part) for part in parts]
    if all(part in MARGINS for part in parts):
        return "margin", parts
    known = [*_PHRASES, *(f"{m} margin" for m in MARGINS), *(f"BI-RADS {b}" for b in BIRADS)]
    nearest = difflib.get_close_matches(phrase, known, n=1, cutoff=0.0)[0]
    raise CaptionError(
        f"caption {caption!r}: {written!r} is not a lexicon term; did you mean {nearest!r}?"
    )
