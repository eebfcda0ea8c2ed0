"""Many problems in few lines: one line for each kind."""

from __future__ import annotations

import re
from collections.abc import Iterable

_EXAMPLES = 3
_ALL_UP_TO = 5
_GAP = "…"
# What differs between problems of one kind: quoted values, file names, words with digits.
_DETAIL = re.compile(r"'[^']*'|\"[^\"]*\"|^[^:]*\.\w{2,4}(?=:)|[^\s,;:()]*[\d/][^\s,;:()]*")


def by_kind(problems: Iterable[str], examples: int = _EXAMPLES) -> list[str]:
    """One line for each kind of problem, the most frequent first: count, reason and examples.

    Args:
        problems: ``<file or case>: <reason>``.
        examples: files or cases to name of a kind of more than five; of fewer, all are named.
    """
    kinds: dict[str, list[tuple[str, str]]] = {}
    for problem in problems:
        source, _, reason = problem.partition(": ")
        kinds.setdefault(_kind(reason), []).append((source, reason))
    frequent_first = sorted(kinds.items(), key=lambda item: -len(item[1]))
    return [_line(kind, found, examples) for kind, found in frequent_first]


def _kind(reason: str) -> str:
    return re.sub(rf"{_GAP}(?:[, ]+{_GAP})*", _GAP, _DETAIL.sub(_GAP, reason))


def _line(kind: str, found: list[tuple[str, str]], examples: int) -> str:
    (first, reason), *others = found
    examples = examples if len(found) > _ALL_UP_TO else len(found)
    if not others:
        return f"{first}: {reason}"
    if any(other != reason for _, other in others):
        reason = kind.removeprefix(f"{_GAP}: ")
        named = [f"{source}{_details(reason_of)}" for source, reason_of in found[:examples]]
    else:
        named = [source for source, _ in found[:examples]]
    more = ", ..." if len(found) > examples else ""
    return f"{len(found)} x {reason}: {', '.join(named)}{more}"


def _details(reason: str) -> str:
    """What the gaps of the kind hold, without paths."""
    details = [text for text in _DETAIL.findall(reason) if "/" not in text]
    return f" ({', '.join(details)})" if details else ""
