"""Texts in CSV files, which spreadsheets open."""

from __future__ import annotations

import unicodedata

# A cell that starts so is a formula, also after blanks and in full-width signs.
_FORMULA_SIGNS = ("=", "+", "-", "@")


def is_formula(text: str) -> bool:
    """Whether a spreadsheet would compute a text instead of showing it."""
    return unicodedata.normalize("NFKC", text).lstrip().startswith(_FORMULA_SIGNS)


def as_shown(text: str) -> str:
    """The text with an apostrophe before it if it is a formula, so that it is shown as it is."""
    return f"'{text}" if is_formula(text) else text
