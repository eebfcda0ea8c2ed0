"""Which rows of a corpus downstream steps take: those that the gate accepted.

A table that was never gated (real cases, a corpus made elsewhere) is taken whole.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from stdiff.cases import read_cases
from stdiff.files import InputError


@dataclass(frozen=True)
class GateCount:
    """Images of a corpus, and what the gate made of them."""

    made: int
    accepted: int
    rejected_for: dict[str, int]  # reason → images; one image may have several

    def __str__(self) -> str:
        reasons = ", ".join(f"{name} {count}" for name, count in self.rejected_for.items())
        return f"{self.accepted} of {self.made} accepted; rejected for {reasons or 'nothing'}"


def is_accepted(gate: dict[str, Any] | None) -> bool:
    """Whether a row with this ``gate`` cell is used downstream."""
    return gate is None or bool(gate["accepted"])


def count_gate(cells: Sequence[dict[str, Any] | None]) -> GateCount:
    """Count the ``gate`` cells of a corpus; the most frequent reason first."""
    reasons = Counter(reason for cell in cells if cell is not None for reason in cell["reasons"])
    return GateCount(
        made=len(cells),
        accepted=sum(map(is_accepted, cells)),
        rejected_for=dict(sorted(reasons.items(), key=lambda item: (-item[1], item[0]))),
    )


def read_accepted(corpus: Sequence[Path]) -> tuple[pd.DataFrame, GateCount]:
    """The accepted rows of a corpus, and how many there were.

    Raises:
        InputError: a table that cannot be read, no row at all, or none that was accepted.
    """
    rows = read_cases(corpus) if corpus else None
    if rows is None or rows.empty:
        raise InputError(
            f"the corpus ({len(corpus)} files) holds no image; name the shards that `stdiff "
            "generate` or `stdiff gate apply` wrote"
        )
    count = count_gate(list(rows["gate"]))
    if not count.accepted:
        raise InputError(
            f"the gate accepted none of the corpus' {count.made} images (rejected for "
            + ", ".join(f"{reason}: {n}" for reason, n in count.rejected_for.items())
            + "); train the generator for longer, or turn the scores off that reject them, e.g. "
            f"corpus: {{gate: {{{next(iter(count.rejected_for))}: null}}}}"
        )
    return rows[rows["gate"].map(is_accepted)].reset_index(drop=True), count
