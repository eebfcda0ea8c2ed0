"""File names of cases: letters of every script, and different on every file system."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Callable, Iterable
from functools import partial

import numpy as np

from stdiff.runtime.names import composed

# File systems take 255 bytes; suffixes such as _0000.png come after, and some need a margin.
_MOST_BYTES = 200
_HASH = re.compile(r"-[0-9a-f]{10}")


def name_giver(case_ids: Iterable[str]) -> Callable[[str], str]:
    """A function that gives each of some cases a file name without suffix.

    What is no letter, number, dot, hyphen or underscore becomes an underscore. Names over 200
    bytes are cut. Names that a file system might take for one (it may ignore case and Unicode
    forms), and cut ones, end in a hash of their case id.

    Args:
        case_ids: of all cases, each once. Eight bytes a case are kept, so that a corpus of any
            size can be named.
    """
    keys = np.fromiter((_key(_plain(case_id)) for case_id in case_ids), np.uint64)
    values, counts = np.unique(keys, return_counts=True)
    return partial(_name, frozenset(values[counts > 1].tolist()))


def _name(shared: frozenset[int], case_id: str) -> str:
    plain = _plain(case_id)
    fits = len(plain.encode()) <= _MOST_BYTES
    # A name that ends like ours do might be another case's.
    if fits and not _HASH.fullmatch(plain[-11:]) and _key(plain) not in shared:
        return plain
    digest = hashlib.sha256(case_id.encode()).hexdigest()[:10]
    cut = plain.encode()[: _MOST_BYTES - len(digest) - 1].decode(errors="ignore")
    return f"{cut}-{digest}"


def _plain(case_id: str) -> str:
    name = "".join(c if _is_kept(c) else "_" for c in composed(case_id))
    # A file whose name begins with a dot is hidden.
    return re.sub(r"^\.", "_", name) or "_"


def _is_kept(character: str) -> bool:
    """Letters with their marks and numbers, of every script, and . _ -"""
    return character in "._-" or unicodedata.category(character)[0] in "LMN"


def _key(name: str) -> int:
    alike = composed(name.casefold()).encode()
    return int.from_bytes(hashlib.blake2b(alike, digest_size=8).digest())
