"""File names as a person sees them: what looks equal is equal."""

from __future__ import annotations

import unicodedata
from pathlib import PurePath


def composed(text: str) -> str:
    """Text in Unicode's composed form: an é of one code point and one of two are equal."""
    return unicodedata.normalize("NFC", text)


def file_key(name: str) -> str:
    """A file name to compare with others: composed, the suffix in small letters."""
    path = PurePath(composed(name))
    return f"{path.stem}{path.suffix.lower()}"


def escaped(text: str) -> str:
    r"""Text that can be stored and printed on one line.

    Bytes of a name that are not UTF-8 become ``\xb5``, control characters ``\n`` and the like.
    """
    return "".join(map(_escaped, text))


def _escaped(character: str) -> str:
    kind = unicodedata.category(character)
    if kind == "Cs":
        # Python keeps byte b5 of a name as the surrogate dcb5.
        return f"\\x{ord(character) & 0xFF:02x}"
    return character.encode("unicode_escape").decode() if kind == "Cc" else character
