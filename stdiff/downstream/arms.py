"""An arm: what a segmenter is trained on besides the real labelled images, and how they meet."""

from __future__ import annotations

import re
from dataclasses import dataclass

from stdiff.config.run import Config
from stdiff.config.segmentation import ArmConfig
from stdiff.runtime.files import InputError
from stdiff.table.label_budget import LabelBudget

# The columns of a per-case table that name a training, but for its seed.
TRAINING = ["segmenter", "arm", "labels"]
# The columns of the table that a failed training leaves.
HOLE = [*TRAINING, "seed", "reason"]
# Of a pretrained segmenter's images, those seen before the real ones.
PRETRAINING = 0.75


@dataclass(frozen=True)
class Phase:
    """A part of a training."""

    name: str
    fraction: float  # of the training's images
    synthetic_share: float  # share of synthetic images in every batch, in [0, 1]

    def real_in_batch(self, batch: int) -> int:
        """Number of real images in a batch of ``batch`` images; at least one if any is wanted."""
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
        """The parts of the training, in their order; all arms see equally many images in all."""
        kind = self.config.kind
        if kind == "pretrained":
            return Phase("synthetic", PRETRAINING, 1.0), Phase("real", 1 - PRETRAINING, 0.0)
        share = {"mixed": self.config.share_of_mixed, "synthetic": 1.0}.get(kind, 0.0)
        return (Phase(kind, 1.0, share),)


def parse_arm(text: str, config: Config) -> Arm:
    """The arm that ``<arm>-<labels>``, e.g. ``mixed-10`` or ``mixed-40cases``, names.

    Raises:
        InputError: not of that form, or arm or labels are not in the configuration.
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
    """The tables of all trainings of segmenters, below the run's folder."""
    return [
        f"segment/{segmenter}/{arm}-{budget.slug}/seed{seed}.parquet"
        for segmenter, arm in config.segmentation.trainings
        for budget in config.segmentation.budgets
        for seed in range(config.segmentation.seeds)
    ]


def real_arm(config: Config) -> str:
    """Name of the arm that gains are measured against: the first with real images only."""
    return next(name for name, arm in config.segmentation.arms.items() if arm.kind == "real")
