"""The configuration's sections on segmenters, their arms, and what is measured."""

from __future__ import annotations

import re
from typing import Literal, Self

from pydantic import Field, model_validator

from stdiff.config_generator import Section
from stdiff.config_training import SegmenterTrainingConfig

Architecture = Literal[
    *("Unet", "UnetPlusPlus", "MAnet", "Linknet", "FPN", "PSPNet", "DeepLabV3", "DeepLabV3Plus"),
    *("PAN", "UPerNet", "Segformer", "DPT"),
]


class SegmenterConfig(Section):
    """A network of segmentation-models-pytorch, trained from random weights."""

    architecture: Architecture = Field("Unet", description="as in `smp.create_model`")
    encoder: str = Field("resnet18", description="as in `smp.create_model`")


class ArmConfig(Section):
    """What a segmenter is trained on besides the real labelled images."""

    synthetic_share: float = Field(
        ge=0, lt=1, description="share of synthetic images in every batch; 0 = real images only"
    )


class SegmentationConfig(Section):
    """The downstream benchmark: segmenters x arms x label fractions x seeds."""

    segmenters: dict[str, SegmenterConfig] = {"unet_resnet18": SegmenterConfig()}
    arms: dict[str, ArmConfig] = {
        "real": ArmConfig(synthetic_share=0.0),
        "mixed": ArmConfig(synthetic_share=0.5),
    }
    label_percents: tuple[int, ...] = Field(
        (10, 100),
        min_length=1,
        description="percent of the training labels; each has its own stage 2",
    )
    seeds: int = Field(2, ge=1, description="independent trainings of every arm")
    training: SegmenterTrainingConfig

    @model_validator(mode="after")
    def _arms_make_sense(self) -> Self:
        if not any(arm.synthetic_share == 0 for arm in self.arms.values()):
            raise ValueError(
                "no arm has synthetic_share: 0; the gain needs one to be measured against; "
                "e.g. arms: {real: {synthetic_share: 0}, mixed: {synthetic_share: 0.5}}"
            )
        if bad := [p for p in self.label_percents if not 1 <= p <= 100]:
            raise ValueError(
                f"label_percents {bad} are not percents between 1 and 100; "
                "e.g. label_percents: [10, 100]"
            )
        if len(set(self.label_percents)) < len(self.label_percents):
            raise ValueError(
                f"label_percents {list(self.label_percents)} names one twice; "
                f"e.g. label_percents: {sorted(set(self.label_percents))}"
            )
        for name in (*self.arms, *self.segmenters):
            if not re.fullmatch(r"[a-z0-9_]+", name):
                mend = re.sub(r"[^a-z0-9_]+", "_", name.lower())
                raise ValueError(
                    f"{name!r} names a file: use a-z, 0-9 and _ only; e.g. {mend}: {{...}}"
                )
        return self


class EvaluationConfig(Section):
    """Fidelity, control and gain."""

    bootstrap_draws: int = Field(10_000, ge=100, description="draws of the bootstrap intervals")
    kid_subset_size: int = Field(100, ge=10, description="images in one KID subset; at most N")
    kid_subsets: int = Field(100, ge=2, description="number of KID subsets")
