"""Errors whose message is all the user needs; light to import."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class InputError(ValueError):
    """Wrong input: the message says what, where, and how to correct it."""


class UnusableFile(InputError):
    """A step's file is damaged or not the expected one; rerun the step that made it."""


def nearest(word: str, known: Iterable[str], count: int = 1, cutoff: float = 0.0) -> list[str]:
    """The known names most like a word, whatever the case of their letters, the best first."""
    folded: dict[str, str] = {}
    for name in known:
        folded.setdefault(name.casefold(), name)
    close = difflib.get_close_matches(word.casefold(), folded, n=count, cutoff=cutoff)
    return [folded[name] for name in close]
