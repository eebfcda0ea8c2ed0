"""The BI-RADS ultrasound lexicon (5th edition) and captions of its terms.

A caption is one line such as::

    BI-RADS 4A, malignant: irregular shape, not parallel orientation, indistinct and
    spiculated margin, hypoechoic, posterior shadowing, calcifications in a mass

Every part is optional; the empty caption is the unconditional one.
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

# Findings column → terms. `margin` may hold several of them, every other column one.
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

# Column → term → its phrase in a caption.
_PHRASES_OF: dict[str, dict[str, str]] = {
    "shape": {term: f"{term} shape" for term in SHAPES},
    "orientation": {term: f"{term} orientation" for term in ORIENTATIONS},
    "echo_pattern": {term: term for term in ECHO_PATTERNS},
    "posterior_features": {
        "no posterior features": "no posterior features",
        "enhancement": "posterior enhancement",
        "shadowing": "posterior shadowing",
        "combined pattern": "combined posterior pattern",
    },
    "calcifications": {
        "in a mass": "calcifications in a mass",
        "outside of a mass": "calcifications outside of a mass",
        "intraductal": "intraductal calcifications",
        "none": "no calcifications",
    },
}
# Phrase → (column, term): those of a caption, and the bare terms of all but calcifications.
_PHRASES: dict[str, tuple[str, str]] = {
    **{p: (c, term) for c, by_term in _PHRASES_OF.items() for term, p in by_term.items()},
    **{term: ("pathology", term) for term in PATHOLOGIES},
    **{f"{term} echo pattern": ("echo_pattern", term) for term in ECHO_PATTERNS},
    **{
        term: (column, term)
        for column in ("shape", "orientation", "echo_pattern", "posterior_features")
        for term in VOCABULARY[column]
    },
}

# Other spellings of a phrase, hyphens replaced by blanks.
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
    """A term is not in the lexicon, or contradicts another one of the caption."""


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
        # Sorted, so that equal findings render to equal captions.
        object.__setattr__(self, "margin", tuple(m for m in MARGINS if m in set(self.margin)))

    @classmethod
    def from_row(cls, row: dict[str, Any]) -> Findings:
        """Findings of a case-table row (missing values may be None or NaN)."""
        values = {f.name: row.get(f.name) for f in fields(cls)}
        clean = {k: v for k, v in values.items() if k != "margin" and isinstance(v, str)}
        margin = values["margin"]
        # pandas returns lists as arrays, and NaN for null.
        unknown = margin is None or isinstance(margin, float)
        return cls(**clean, margin=() if unknown else tuple(margin))

    def as_row(self) -> dict[str, Any]:
        """The same terms as case-table columns (``margin`` a list or None)."""
        row = asdict(self)
        row["margin"] = list(self.margin) or None
        return row


def render(findings: Findings) -> str:
    """One-line caption of the findings; the empty string when nothing is known."""
    head = [f"BI-RADS {findings.birads}"] if findings.birads else []
    if findings.pathology:
        head.append(findings.pathology)
    phrases = {c: by_term.get(getattr(findings, c)) for c, by_term in _PHRASES_OF.items()}
    phrases["margin"] = " and ".join(findings.margin) + " margin" if findings.margin else None
    terms = [phrases[column] for column in VOCABULARY if phrases.get(column)]
    return ": ".join(part for part in (", ".join(head), ", ".join(terms)) if part)


_BIRADS_PATTERN = re.compile(r"^bi ?rads ?(?:category|score)? ?(\d) ?([abc]?)$")


def parse(caption: str) -> Findings:
    """Findings named in a caption. Spelling variants and any order are accepted, unknown words not.

    Raises:
        CaptionError: a phrase is not in the lexicon (the message suggests the nearest one), or a
            column other than margin has two different terms.
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
    """The lexicon's spelling of a known variant; any other phrase as it is."""
    phrase = " ".join(phrase.replace("-", " ").split())
    phrase = _NOUNS.sub("", _SPLIT_WORDS.sub(r"\1\2", phrase))
    phrase = re.sub(r"^(\w+?)(?:ly)? shaped$", r"\1 shape", phrase)
    phrase = re.sub(r"\bmargins$", "margin", phrase)
    return _SPELLINGS.get(phrase, phrase)


def _read_phrase(written: str, caption: str) -> tuple[str, list[str]]:
    """(column, terms) of one phrase."""
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
    # "not circumscribed - indistinct" means "indistinct".
    parts = [re.sub(r"^not circumscribed ?", "", part) for part in parts]
    if all(part in MARGINS for part in parts):
        return "margin", parts
    known = [*_PHRASES, *(f"{m} margin" for m in MARGINS), *(f"BI-RADS {b}" for b in BIRADS)]
    nearest = difflib.get_close_matches(phrase, known, n=1, cutoff=0.0)[0]
    raise CaptionError(
        f"caption {caption!r}: {written!r} is not a lexicon term; did you mean {nearest!r}?"
    )
