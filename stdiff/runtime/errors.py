"""Errors whose message is all the user needs; light to import."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path


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


class NotWritten(OSError):
    """The operating system refuses to write ``filename``: full disk, no permission and the like."""


def os_error_line(error: OSError) -> str:
    """The file and the reason, in one line."""
    reason = os.strerror(error.errno) if error.errno else error.strerror or str(error)
    if error.filename is None:
        return reason
    verb = "written" if isinstance(error, NotWritten) else "read"
    return f"{os.fsdecode(error.filename)}: cannot be {verb} ({reason})"


@contextmanager
def writing(path: Path, inside: Path | None = None) -> Iterator[None]:
    """Turn the operating system's errors while ``path`` is written into :class:`NotWritten`.

    Errors that name another file, such as one that is read meanwhile, stay as they are.

    Args:
        path: the file or folder that the user knows.
        inside: folder that it is written in until it is finished.
    """
    path = Path(path)
    ours = {None, str(path), *map(str, path.parents)}
    try:
        yield
    except InputError:
        raise
    except OSError as error:
        name = error.filename and os.fsdecode(error.filename)
        if name not in ours and not (inside and Path(name).is_relative_to(inside)):
            raise
        reason = os.strerror(error.errno) if error.errno else str(error)
        raise NotWritten(error.errno, reason, str(path)) from error
    except Exception as error:
        # Libraries written in Rust (safetensors, tokenizers) have errors of their own.
        if not (found := re.search(r"\(os error (\d+)\)", str(error))):
            raise
        number = int(found[1])
        raise NotWritten(number, os.strerror(number), str(path)) from error
