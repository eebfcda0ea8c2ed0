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
    """What a segmenter is trained on besides the real labelled images, and how they meet.

    Every arm takes the same number of steps of the same batch with the same augmentation.
    """

    kind: Literal["real", "mixed", "pretrained", "unlabelled", "synthetic"] = Field(
        description="`real`: real labelled images only; `mixed`: synthetic ones in every batch; "
        "`pretrained`: three quarters of the steps on synthetic images, then real ones; "
        "`unlabelled`: images without their masks, for a semi-supervised segmenter (`MGCC`); "
        "`synthetic`: synthetic images only"
    )
    ratio: float | None = Field(
        None,
        gt=0,
        description="synthetic images for each real labelled one, the first of the corpus; "
        "null = the whole corpus",
    )
    synthetic_share: float | None = Field(
        None,
        gt=0,
        lt=1,
        description="mixed: share of synthetic images in every batch; null = ratio / (1 + ratio), "
        "or a half of the whole corpus",
    )
    unlabelled: tuple[Literal["corpus", "training"], ...] = Field(
        ("corpus",),
        min_length=1,
        description="unlabelled: images of the corpus, real training images beyond the label "
        "budget, or both",
    )
    weighted: bool = Field(
        False,
        description="weigh synthetic images in the loss by the mask agreement that the gate found",
    )

    @property
    def share_of_mixed(self) -> float:
        """Share of synthetic images in every batch of a mixed arm."""
        if self.synthetic_share is not None:
            return self.synthetic_share
        return 0.5 if self.ratio is None else self.ratio / (1 + self.ratio)

    @property
    def uses_corpus(self) -> bool:
        """Whether a corpus is needed."""
        return self.kind != "real" and (self.kind != "unlabelled" or "corpus" in self.unlabelled)

    @model_validator(mode="after")
    def _keys_of_its_kind(self) -> Self:
        unused = {
            "ratio": not self.uses_corpus,
            "synthetic_share": self.kind != "mixed",
            "unlabelled": self.kind != "unlabelled",
            "weighted": self.kind in ("real", "unlabelled"),
        }
        if idle := [name for name in self.model_fields_set if unused.get(name)]:
            name = sorted(idle)[0]
            default = type(self).model_fields[name].default
            if getattr(self, name) != default:
                raise ValueError(
                    f"{name} {getattr(self, name)!r} has no effect in an arm of kind {self.kind}; "
                    f"leave it out, e.g. {{kind: {self.kind}}}"
                )
        return self


class SegmentationConfig(Section):
    """The downstream benchmark: segmenters x arms x label fractions x seeds."""

    segmenters: dict[str, SegmenterConfig] = {"unet_resnet18": SegmenterConfig()}
    arms: dict[str, ArmConfig] = {
        "real": ArmConfig(kind="real"),
        "mixed": ArmConfig(kind="mixed"),
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
        if not any(arm.kind == "real" for arm in self.arms.values()):
            raise ValueError(
                "no arm is of kind real; the gain needs one to be measured against; "
                "e.g. arms: {real: {kind: real}, mixed: {kind: mixed}}"
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
