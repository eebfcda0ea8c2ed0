"""Label budget of an experiment: a share of the training labels, or a number of cases."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import total_ordering


@total_ordering
@dataclass(frozen=True)
class LabelBudget:
    """``10 %`` of the training labels, or ``40 cases``: the first of them, by label rank.

    Budgets are ordered as a table lists them: numbers of cases first, then shares.
    """

    number: int
    is_percent: bool

    @classmethod
    def parse(cls, text: int | str) -> LabelBudget:
        """From ``10``, ``10 %``, ``40 cases`` or ``40cases``.

        Raises:
            ValueError: of another form, a share beyond 1 to 100 %, or no case.
        """
        match = re.fullmatch(r"(\d{1,9})\s*(%|cases)?", str(text).strip())
        if match is None:
            raise ValueError(
                f"{text!r} is neither a percent nor a number of cases; e.g. labels: [40 cases, 10]"
            )
        number, is_percent = int(match[1]), match[2] != "cases"
        if is_percent and not 1 <= number <= 100:
            raise ValueError(f"{text} is not a percent between 1 and 100; e.g. labels: [10, 100]")
        if number < 1:
            raise ValueError(f"{text!r} leaves nothing to learn from; e.g. labels: [40 cases]")
        return cls(number, is_percent)

    def __str__(self) -> str:
        """Text for tables."""
        return f"{self.number} {'%' if self.is_percent else 'cases'}"

    @property
    def words(self) -> str:
        """Text for sentences: ``10 % of the labels`` or ``40 labelled cases``."""
        return f"{self} of the labels" if self.is_percent else f"{self.number} labelled cases"

    @property
    def slug(self) -> str:
        """Text for paths and arms: ``10`` or ``40cases``."""
        return str(self.number) if self.is_percent else f"{self.number}cases"

    def __lt__(self, other: LabelBudget) -> bool:
        return (self.is_percent, self.number) < (other.is_percent, other.number)


ALL_LABELS = LabelBudget(100, is_percent=True)


def corpus_name(run: str, labels: LabelBudget) -> str:
    """The name of a run's corpus (column ``collection``), which names its label budget."""
    return f"{run}-labels{labels.slug}"


def budget_of_corpus(name: str) -> LabelBudget | None:
    """The label budget in a :func:`corpus_name`; None for a corpus of another origin."""
    match = re.search(r"-labels(\d+(?:cases)?)$", name)
    return LabelBudget.parse(match[1]) if match else None
