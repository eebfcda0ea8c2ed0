"""An arm: what a segmenter is trained on."""

from __future__ import annotations

import re
from dataclasses import dataclass

from stdiff.config import Config
from stdiff.files import InputError


@dataclass(frozen=True)
class Arm:
    """Real labelled images, and how much of every batch is synthetic."""

    name: str  # as in the configuration, e.g. "mixed"
    label_percent: int  # percent of the training labels
    synthetic_share: float  # share of synthetic images in every batch, in [0, 1)

    def __str__(self) -> str:
        return f"{self.name}-{self.label_percent}"

    def real_in_batch(self, batch: int) -> int:
        """Number of real images in a batch of ``batch`` images; at least one."""
        return max(1, round((1 - self.synthetic_share) * batch))


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
    return Arm(name, percent, arms[name].synthetic_share)


def real_arm(config: Config) -> str:
    """Name of the arm that gains are measured against: the first without synthetic images."""
    return next(n for n, arm in config.segmentation.arms.items() if arm.synthetic_share == 0)
