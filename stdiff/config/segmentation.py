"""The configuration's sections on segmenters, their arms, and what is measured."""

from __future__ import annotations

import difflib
import re
from typing import Literal, Self

from pydantic import Field, field_validator, model_validator

from stdiff.config.generator import Section
from stdiff.config.training import SegmenterTrainingConfig
from stdiff.table.label_budget import LabelBudget

# Of segmentation-models-pytorch.
SMP_NETWORKS = (
    *("Unet", "UnetPlusPlus", "MAnet", "Linknet", "FPN", "PSPNet", "DeepLabV3", "DeepLabV3Plus"),
    *("PAN", "UPerNet", "Segformer", "DPT"),
)
NETWORKS = (
    *SMP_NETWORKS,
    *(f"monai.{name}" for name in ("UNet", "BasicUNet", "AttentionUnet", "SwinUNETR", "DynUNet")),
    *("CMUNet", "MGCC"),
)
# Trains and predicts by itself, with a package of its own.
NNUNET = "nnUNet"
_OF_NNUNET = {"epochs", "steps_per_epoch"}
# What makes a network of those a segmenter.
_FIXED = {
    *("activation", "aux_params", "classes", "deep_supervision", "encoder_weights"),
    *("in_channels", "out_channels", "spatial_dims"),
}
# Networks with auxiliary outputs, which can be trained on images without masks.
SEMI_SUPERVISED = ("MGCC",)


class SegmenterConfig(Section):
    """A network, trained from random weights."""

    network: str = Field(
        "Unet",
        description=f"one of {', '.join(NETWORKS)}; `{NNUNET}`, which takes stdiff[nnunet] and is "
        "trained its own way; or `module:factory` of your own: a function "
        "that makes a torch module, grey images (N, 1, H, W) to lesion logits (N, 1, H, W)",
    )
    encoder: str = Field(
        "resnet18",
        description=f"of {', '.join(SMP_NETWORKS)}: as in `smp.create_model`; others have their "
        "own",
    )
    options: dict[str, bool | int | float | str | list[bool | int | float | str]] = Field(
        {},
        description="further arguments of the network, e.g. {channels: [16, 32, 64, 128, 256]}; of "
        f"{NNUNET} epochs (1000) and steps_per_epoch (250)",
    )

    @model_validator(mode="after")
    def _known(self) -> Self:
        own = re.fullmatch(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*", self.network)
        known = (*NETWORKS, NNUNET)
        if self.network not in known and not own:
            nearest = difflib.get_close_matches(self.network, known, n=3, cutoff=0.0)
            raise ValueError(
                f"network {self.network!r} is not known; did you mean {', '.join(nearest)}? One of "
                f"your own is module:factory; e.g. network: {nearest[0]}"
            )
        if not own and (taken := sorted(_FIXED & set(self.options))):
            raise ValueError(
                f"options {', '.join(taken)} of {self.network} are not free: a segmenter takes one "
                "grey image, starts from random weights and gives one lesion logit a pixel; leave "
                "them out, e.g. options: {}"
            )
        if self.network == NNUNET:
            wrong = {
                name: value
                for name, value in self.options.items()
                if name not in _OF_NNUNET or type(value) is not int or value < 1
            }
            if wrong:
                raise ValueError(
                    f"options {wrong} of {NNUNET}: expected epochs and steps_per_epoch, whole "
                    "numbers from 1, and nothing else; e.g. options: {epochs: 100}"
                )
        return self

    def takes(self, arm: ArmConfig) -> bool:
        """Whether it can be trained on such an arm."""
        if arm.without_masks:
            return self.network in SEMI_SUPERVISED
        # nnU-Net draws all its cases alike, from the first step to the last.
        weighs = arm.weighted or arm.synthetic_share is not None or arm.kind == "pretrained"
        return self.network != NNUNET or not weighs


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
    unlabelled: tuple[Literal["corpus", "training"], ...] | None = Field(
        None,
        min_length=1,
        description="unlabelled: images of the corpus (null), real training images beyond the "
        "label budget, or both; mixed: such images beside the labelled ones (null = none)",
    )
    weighted: bool = Field(
        False,
        description="weigh synthetic images in the loss by the mask agreement the filter found",
    )

    @property
    def share_of_mixed(self) -> float:
        """Share of synthetic images in every batch of a mixed arm."""
        if self.synthetic_share is not None:
            return self.synthetic_share
        return 0.5 if self.ratio is None else self.ratio / (1 + self.ratio)

    @property
    def without_masks(self) -> tuple[str, ...]:
        """Where images that are seen without their masks come from; none for most arms."""
        return self.unlabelled or (("corpus",) if self.kind == "unlabelled" else ())

    @property
    def uses_corpus(self) -> bool:
        """Whether a corpus is needed."""
        return self.kind not in ("real", "unlabelled") or "corpus" in self.without_masks

    @model_validator(mode="after")
    def _keys_of_its_kind(self) -> Self:
        has_effect = {
            "ratio": self.uses_corpus,
            "synthetic_share": self.kind == "mixed",
            "unlabelled": self.kind in ("unlabelled", "mixed"),
            "weighted": self.kind in ("mixed", "pretrained", "synthetic"),
        }
        for name, effective in has_effect.items():
            value = getattr(self, name)
            if not effective and value != type(self).model_fields[name].default:
                raise ValueError(
                    f"{name} {value!r} has no effect in an arm of kind {self.kind}; leave it out, "
                    f"e.g. {{kind: {self.kind}}}"
                )
        return self


class SegmentationConfig(Section):
    """The downstream benchmark: segmenters x arms x label budgets x seeds."""

    segmenters: dict[str, SegmenterConfig] = {"unet_resnet18": SegmenterConfig()}
    arms: dict[str, ArmConfig] = {
        "real": ArmConfig(kind="real"),
        "mixed": ArmConfig(kind="mixed"),
    }
    labels: tuple[int | str, ...] = Field(
        (10, 100),
        min_length=1,
        description="label budgets, each with its own stage 2: percent of the training labels, or "
        "a number of annotated lesion cases, e.g. `40 cases`",
    )
    seeds: int = Field(2, ge=1, description="independent trainings of every arm")
    training: SegmenterTrainingConfig

    @field_validator("labels")
    @classmethod
    def _are_budgets(cls, labels: tuple[int | str, ...]) -> tuple[int | str, ...]:
        once = dict.fromkeys(LabelBudget.parse(one) for one in labels)
        if len(once) < len(labels):
            raise ValueError(
                f"{list(labels)} names one twice; "
                f"e.g. labels: [{', '.join(budget.slug for budget in once)}]"
            )
        return labels

    @model_validator(mode="after")
    def _arms_make_sense(self) -> Self:
        if not any(arm.kind == "real" for arm in self.arms.values()):
            raise ValueError(
                "no arm is of kind real; the gain needs one to be measured against; "
                "e.g. arms: {real: {kind: real}, mixed: {kind: mixed}}"
            )
        alone = [name for name, arm in self.arms.items() if arm.without_masks]
        if alone and not any(s.network in SEMI_SUPERVISED for s in self.segmenters.values()):
            raise ValueError(
                f"arm {alone[0]} takes images without masks, but no segmenter can use "
                "them; e.g. segmenters: {mgcc: {network: MGCC}}"
            )
        first, judge = next(iter(self.segmenters.items()))
        if judge.network.startswith("monai.") or judge.network == NNUNET:
            raise ValueError(
                f"segmenter {first} stands first and judges generated images by the features of "
                f"its encoder, which {judge.network} does not give; e.g. segmenters: "
                f"{{unet_resnet18: {{network: Unet}}, {first}: {{network: {judge.network}}}}}"
            )
        for name in (*self.arms, *self.segmenters):
            if not re.fullmatch(r"[a-z0-9_]+", name):
                mend = re.sub(r"[^a-z0-9_]+", "_", name.lower())
                raise ValueError(
                    f"{name!r} names a file: use a-z, 0-9 and _ only; e.g. {mend}: {{...}}"
                )
        return self

    @property
    def budgets(self) -> list[LabelBudget]:
        """The label budgets, parsed."""
        return [LabelBudget.parse(labels) for labels in self.labels]

    @property
    def trainings(self) -> list[tuple[str, str]]:
        """Every segmenter with every arm that it can be trained on."""
        return [
            (segmenter, arm)
            for segmenter, network in self.segmenters.items()
            for arm, about in self.arms.items()
            if network.takes(about)
        ]


class EvaluationConfig(Section):
    """Fidelity, control and gain."""

    bootstrap_draws: int = Field(10_000, ge=100, description="draws of the bootstrap intervals")
    images: int = Field(
        10_000,
        ge=10,
        description="generated images that fidelity, control and memorisation are of, at most: "
        "evenly spread over the accepted ones of a corpus",
    )
    kid_subset_size: int = Field(100, ge=10, description="images in one KID subset; at most N")
    kid_subsets: int = Field(100, ge=2, description="number of KID subsets")
