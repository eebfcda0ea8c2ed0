"""Cells of CSV files and spreadsheets as what they mean, not as they are written."""

from __future__ import annotations

import math
import re

from stdiff.birads.lexicon import VOCABULARY
from stdiff.runtime.names import composed

# How programs and people write that a value is not known, in small letters.
_MISSING = frozenset(
    {
        *("", "nan", "na", "n/a", "n.a.", "#n/a", "<na>", "nat", "null", "none", "nil", "-", "--"),
        *("–", "—", "?", ".", "missing", "unknown", "not known", "not available"),
        *("not applicable", "not specified", "#null!", "#value!", "#ref!"),
    }
)
# Blanks at the ends that str.strip() leaves: without width, and the mark before a file.
_WITHOUT_WIDTH = re.compile("[\u200b\u2060\ufeff]")
_WHOLE = re.compile(r"(\d+)[.,]0*")
_BIRADS_WORD = re.compile(r"^bi[ -]?rads[ :]*", re.IGNORECASE)


def text_of(cell: object) -> str:
    """A cell as a person reads it: 1.0 is '1'; blanks around it and Unicode forms do not count."""
    text = " ".join(_WITHOUT_WIDTH.sub("", composed("" if cell is None else str(cell))).split())
    whole = _WHOLE.fullmatch(text)
    return whole[1] if whole else text


def value_of(cell: object, column: str = "") -> str:
    """The text of a cell, '' if it says that the value is missing.

    Args:
        cell: of a table.
        column: of the cell; 'none' is a term of the lexicon's column calcifications.
    """
    text = text_of(cell)
    word = text.lower()
    return "" if word in _MISSING and word not in VOCABULARY.get(column, ()) else text


def term_of(column: str, text: str) -> str | None:
    """The lexicon's term that a text names in any case, or None: '4a' and 'BI-RADS 4A' are '4A'."""
    if column == "birads":
        text = _BIRADS_WORD.sub("", text).replace(" ", "")
    terms = {term.lower(): term for term in VOCABULARY[column]}
    return terms.get(text.lower())


def decimal(text: str) -> float:
    """Number with a decimal point or comma; NaN if it is none."""
    try:
        return float(text.replace(",", "."))
    except ValueError:
        return math.nan


def look_alike(identifier: str) -> str:
    """What identifiers share that a person may take for one: 'P 01', 'p1' and 'P-001' are alike."""
    parts = re.findall(r"\d+|[^\W\d_]+", composed(identifier).casefold())
    return " ".join(str(int(part)) if part.isdecimal() else part for part in parts)
