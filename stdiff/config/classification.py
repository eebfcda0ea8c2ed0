"""The configuration's section on classifiers."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator

from stdiff.config.generator import Section
from stdiff.config.training import DownstreamTrainingConfig

Target = Literal["pathology", "birads"]


class ClassificationConfig(Section):
    """Classifiers of lesions, on the arms, budgets and seeds of the segmenters."""

    targets: tuple[Target, ...] = Field(
        ("pathology",),
        min_length=1,
        description="`pathology` (benign or malignant), `birads` (categories 2 to 5), or both",
    )
    network: str = Field(
        "resnet18", description="as in `timm.create_model`; trained from random weights"
    )
    training: DownstreamTrainingConfig

    @field_validator("targets")
    @classmethod
    def _named_once(cls, targets: tuple[Target, ...]) -> tuple[Target, ...]:
        if len(once := dict.fromkeys(targets)) < len(targets):
            raise ValueError(f"{list(targets)} names one twice; e.g. targets: [{', '.join(once)}]")
        return targets
