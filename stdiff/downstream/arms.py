"""An arm: the training data of a network besides the real labelled images, and its schedule."""

from __future__ import annotations

import re
from dataclasses import dataclass

from stdiff.config.downstream import ArmConfig
from stdiff.config.run import Config
from stdiff.runtime.files import InputError
from stdiff.table.label_budget import LabelBudget

# Share of a pretrained network's images that are synthetic and come before the real ones.
_PRETRAINING = 0.75


@dataclass(frozen=True)
class Phase:
    """A part of a training."""

    name: str
    fraction: float  # of the training's images, in (0, 1]
    synthetic_share: float  # share of synthetic images in every batch, in [0, 1]

    def real_in_batch(self, batch: int) -> int:
        """Number of real images in a batch; at least one unless the phase is all synthetic."""
        real = round((1 - self.synthetic_share) * batch)
        return max(real, int(self.synthetic_share < 1))


@dataclass(frozen=True)
class Arm:
    """An arm at one label budget."""

    name: str  # as in the configuration, e.g. "mixed"
    labels: LabelBudget
    config: ArmConfig

    def __str__(self) -> str:
        return f"{self.name}-{self.labels.slug}"

    @property
    def phases(self) -> tuple[Phase, ...]:
        """The parts of the training in order; the total number of images is equal in all arms."""
        kind = self.config.kind
        if kind == "pretrained":
            return Phase("synthetic", _PRETRAINING, 1.0), Phase("real", 1 - _PRETRAINING, 0.0)
        share = {"mixed": self.config.share_of_mixed, "synthetic": 1.0}.get(kind, 0.0)
        return (Phase(kind, 1.0, share),)


def parse_arm(text: str, config: Config) -> Arm:
    """Parse ``<arm>-<labels>``, e.g. ``mixed-10`` or ``mixed-40cases``.

    Raises:
        InputError: wrong format, or arm or labels are not in the configuration.
    """
    arms = config.segmentation.arms
    budgets = {budget.slug: budget for budget in config.segmentation.budgets}
    known = ", ".join(f"{name}-{slug}" for name in arms for slug in budgets)
    match = re.fullmatch(r"([a-z0-9_]+)-(\d+(?:cases)?)", text)
    if match is None:
        raise InputError(f"arm {text!r} is not of the form <arm>-<labels>; expected one of {known}")
    name, slug = match[1], match[2]
    if name not in arms or slug not in budgets:
        raise InputError(f"arm {text!r} is not in the configuration; expected one of {known}")
    return Arm(name, budgets[slug], arms[name])


def per_case_tables(config: Config) -> list[str]:
    """Paths of the per-case tables of all segmenter trainings, relative to the run's folder."""
    return [
        f"segment/{segmenter}/{arm}-{budget.slug}/seed{repetition}.parquet"
        for segmenter, arm in config.segmentation.trainings
        for budget in config.segmentation.budgets
        for repetition in range(config.segmentation.seeds)
    ]


def real_arm(config: Config) -> str:
    """Name of the baseline arm: the first with real images only."""
    return next(name for name, arm in config.segmentation.arms.items() if arm.kind == "real")
