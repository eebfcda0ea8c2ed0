"""An arm: what a segmenter is trained on besides the real labelled images, and how they meet."""

from __future__ import annotations

import re
from dataclasses import dataclass

from stdiff.config import Config
from stdiff.config_segmentation import ArmConfig
from stdiff.files import InputError

# The columns of a per-case table that name a training, but for its seed.
TRAINING = ["segmenter", "arm", "label_percent"]
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
    label_percent: int  # percent of the training labels
    config: ArmConfig

    def __str__(self) -> str:
        return f"{self.name}-{self.label_percent}"

    @property
    def phases(self) -> tuple[Phase, ...]:
        """The parts of the training, in their order; all arms see equally many images in all."""
        kind = self.config.kind
        if kind == "pretrained":
            return Phase("synthetic", PRETRAINING, 1.0), Phase("real", 1 - PRETRAINING, 0.0)
        share = {"mixed": self.config.share_of_mixed, "synthetic": 1.0}.get(kind, 0.0)
        return (Phase(kind, 1.0, share),)


def parse_arm(text: str, config: Config) -> Arm:
    """The arm that ``<arm>-<percent>``, e.g. ``mixed-10``, names in this configuration.

    Raises:
        InputError: not of that form, or arm or percent are not in the configuration.
    """
    arms, percents = config.segmentation.arms, config.segmentation.label_percents
    known = ", ".join(f"{name}-{percent}" for name in arms for percent in percents)
    match = re.fullmatch(r"([a-z0-9_]+)-(\d+)", text)
    if match is None:
        raise InputError(
            f"arm {text!r} is not of the form <arm>-<percent>; expected one of {known}"
        )
    name, percent = match[1], int(match[2])
    if name not in arms or percent not in percents:
        raise InputError(f"arm {text!r} is not in the configuration; expected one of {known}")
    return Arm(name, percent, arms[name])


def real_arm(config: Config) -> str:
    """Name of the arm that gains are measured against: the first with real images only."""
    return next(name for name, arm in config.segmentation.arms.items() if arm.kind == "real")
