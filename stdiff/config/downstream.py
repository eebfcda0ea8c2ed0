"""The configuration's sections on segmenters, classifiers and the arms they are trained on."""

from __future__ import annotations

import re
from typing import Any, Literal, Self

from pydantic import ConfigDict, Field, field_validator, model_validator

from stdiff.config.section import InvalidSetting, Section
from stdiff.config.training import DownstreamTrainingConfig, SegmenterTrainingConfig
from stdiff.runtime.errors import nearest
from stdiff.table.label_budget import LabelBudget

Target = Literal["pathology", "birads"]  # of a classifier
# Architectures of segmentation-models-pytorch.
SMP_NETWORKS = (
    *("Unet", "UnetPlusPlus", "MAnet", "Linknet", "FPN", "PSPNet", "DeepLabV3", "DeepLabV3Plus"),
    *("PAN", "UPerNet", "Segformer", "DPT"),
)
NETWORKS = (
    *SMP_NETWORKS,
    *(f"monai.{name}" for name in ("UNet", "BasicUNet", "AttentionUnet", "SwinUNETR", "DynUNet")),
    *("CMUNet", "MGCC"),
)
# Optional package with its own training and prediction.
NNUNET = "nnUNet"
_NNUNET_OPTIONS = {"epochs", "steps_per_epoch"}
# Set by stdiff: one grey input, one logit per pixel, random weights.
_FIXED = {
    *("activation", "aux_params", "classes", "deep_supervision", "encoder_weights"),
    *("in_channels", "out_channels", "spatial_dims"),
}
# Networks that can also be trained on images without masks, by their auxiliary outputs.
SEMI_SUPERVISED = ("MGCC",)


class SegmenterConfig(Section):
    """A network, trained from random weights."""

    # Options may be any number: the network judges them.
    model_config = ConfigDict(allow_inf_nan=True)

    network: str = Field(
        "Unet",
        description=f"one of {', '.join(NETWORKS)}; `{NNUNET}`, which needs stdiff[nnunet] and has "
        "its own trainer; or `module:factory`: your function that returns a torch module, grey "
        "images (N, 1, H, W) to lesion logits (N, 1, H, W)",
    )
    encoder: str = Field(
        "resnet18",
        description=f"only for {', '.join(SMP_NETWORKS)}: an encoder name of `smp.create_model`",
    )
    options: dict[str, bool | int | float | str | list[bool | int | float | str]] = Field(
        {},
        description="further arguments of the network, e.g. {channels: [16, 32, 64, 128, 256]}; "
        f"for {NNUNET} epochs (1000) and steps_per_epoch (250)",
    )

    @model_validator(mode="after")
    def _known(self) -> Self:
        own = re.fullmatch(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*", self.network)
        known = (*NETWORKS, NNUNET)
        if self.network not in known and not own:
            near = nearest(self.network, known, count=3)
            raise InvalidSetting(
                f"network {self.network!r} is not known; did you mean {', '.join(near)}? For your "
                "own network write module:factory",
                *({"network": one} for one in (*near, "Unet")),
            )
        if not own and (taken := sorted(_FIXED & set(self.options))):
            raise InvalidSetting(
                f"options {', '.join(taken)} of {self.network} cannot be set: a segmenter takes a "
                "grey image, starts from random weights and returns one lesion logit per pixel; "
                "leave them out",
                {"options": {k: v for k, v in self.options.items() if k not in _FIXED}},
            )
        if self.network == NNUNET:
            wrong = {
                name: value
                for name, value in self.options.items()
                if name not in _NNUNET_OPTIONS or type(value) is not int or value < 1
            }
            if wrong:
                raise InvalidSetting(
                    f"options {wrong} of {NNUNET}: expected epochs and steps_per_epoch, whole "
                    "numbers from 1, and nothing else",
                    {"options": {"epochs": 100}},
                )
        return self

    def supports(self, arm: ArmConfig) -> bool:
        """Whether the network can be trained on the arm."""
        if arm.without_masks:
            return self.network in SEMI_SUPERVISED
        # nnU-Net samples all its training cases with equal probability throughout.
        weighted = arm.weighted or arm.synthetic_share is not None or arm.kind == "pretrained"
        return self.network != NNUNET or not weighted


class ArmConfig(Section):
    """Training data of a segmenter besides the real labelled images, and how they are combined.

    All arms use the same number of steps, batch size and augmentation.
    """

    kind: Literal["real", "mixed", "pretrained", "unlabelled", "synthetic"] = Field(
        examples=["mixed"],
        description="`real`: real labelled images only; `mixed`: synthetic ones in every batch; "
        "`pretrained`: three quarters of the steps on synthetic images, then real ones; "
        "`unlabelled`: images without their masks, for a semi-supervised segmenter (`MGCC`); "
        "`synthetic`: synthetic images only",
    )
    ratio: float | None = Field(
        None,
        gt=0,
        examples=[1],
        description="synthetic images per real labelled image, the first of the corpus; "
        "null = the whole corpus",
    )
    synthetic_share: float | None = Field(
        None,
        gt=0,
        lt=1,
        examples=[0.5],
        description="mixed: share of synthetic images in every batch; null = ratio / (1 + ratio), "
        "or 0.5 without a ratio",
    )
    unlabelled: tuple[Literal["corpus", "training"], ...] | None = Field(
        None,
        min_length=1,
        examples=[["corpus"]],
        description="unlabelled: images of the corpus (null), real training images beyond the "
        "label budget, or both; mixed: such images in addition to the labelled ones (null = none)",
    )
    weighted: bool = Field(
        False,
        description="weight synthetic images in the loss by the mask Dice that the filter measured",
    )

    @property
    def share_of_mixed(self) -> float:
        """Share of synthetic images in every batch of a mixed arm, in (0, 1)."""
        if self.synthetic_share is not None:
            return self.synthetic_share
        return 0.5 if self.ratio is None else self.ratio / (1 + self.ratio)

    @property
    def without_masks(self) -> tuple[str, ...]:
        """Sources of images used without their masks; empty for most arms."""
        return self.unlabelled or (("corpus",) if self.kind == "unlabelled" else ())

    @property
    def uses_corpus(self) -> bool:
        """Whether synthetic images are used."""
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
                raise InvalidSetting(
                    f"{name} {value!r} has no effect in an arm of kind {self.kind}; leave it out",
                    {name: type(self).model_fields[name].default},
                )
        return self


class SegmentationConfig(Section):
    """The downstream benchmark: segmenters x arms x label budgets x repetitions."""

    segmenters: dict[str, SegmenterConfig] = Field(
        {"unet_resnet18": SegmenterConfig()}, min_length=1
    )
    arms: dict[str, ArmConfig] = {
        "real": ArmConfig(kind="real"),
        "mixed": ArmConfig(kind="mixed"),
    }
    labels: tuple[int | str, ...] = Field(
        (10, 100),
        min_length=1,
        description="label budgets, each with its own stage 2: percent of the training labels, or "
        "number of annotated lesion cases, e.g. `40 cases`",
    )
    seeds: int = Field(
        2, ge=1, le=1000, description="repetitions: independent trainings of every arm"
    )
    training: SegmenterTrainingConfig

    @field_validator("labels", mode="before")
    @classmethod
    def _are_budgets(cls, labels: Any) -> Any:
        given = list(labels) if isinstance(labels, list | tuple) else [labels]
        budgets, wrong = {}, []
        for one in given:
            try:
                budgets[LabelBudget.parse(one)] = one
            except ValueError as error:
                wrong.append(str(error).partition("; e.g.")[0])
                if isinstance(one, float) and 0.01 <= one <= 1:  # a share where percent is meant
                    budgets[LabelBudget(round(100 * one), is_percent=True)] = round(100 * one)
        instead = {"labels": list(budgets.values()) or [10, 100]}
        if wrong:
            raise InvalidSetting("; ".join(wrong), instead)
        if given and not isinstance(labels, list | tuple):
            raise InvalidSetting(f"labels {labels!r} is not a list", instead)
        if len(budgets) < len(given):
            raise InvalidSetting(f"{given} names a budget twice", instead)
        return labels

    @model_validator(mode="after")
    def _arms_make_sense(self) -> Self:
        arms, segmenters = (
            {name: one.model_dump(mode="json", exclude_defaults=True) for name, one in all_.items()}
            for all_ in (self.arms, self.segmenters)
        )
        for key, named in (("arms", arms), ("segmenters", segmenters)):
            plain = {re.sub(r"[^a-z0-9_]+", "_", n.lower()) or "a": v for n, v in named.items()}
            if bad := [name for name in named if name not in plain]:
                raise InvalidSetting(
                    f"{bad[0]!r} becomes a file name: use a-z, 0-9 and _ only", {key: plain}
                )
        if not any(arm.kind == "real" for arm in self.arms.values()):
            real = {"real": {"kind": "real"}}
            raise InvalidSetting(
                "no arm is of kind real, the baseline of every gain; add one",
                {"arms": real | {name: arm for name, arm in arms.items() if name != "real"}},
            )
        unmasked = [name for name, arm in self.arms.items() if arm.without_masks]
        if unmasked and not any(s.network in SEMI_SUPERVISED for s in self.segmenters.values()):
            raise InvalidSetting(
                f"arm {unmasked[0]} uses images without masks, but no segmenter can; add one",
                {"segmenters": segmenters | {"mgcc": {"network": "MGCC"}}},
            )
        first, evaluator = next(iter(self.segmenters.items()))
        if evaluator.network.startswith("monai.") or evaluator.network == NNUNET:
            raise InvalidSetting(
                f"segmenter {first} is the first and evaluates generated images by its encoder "
                f"features, which {evaluator.network} does not provide; put another first",
                *(
                    {"segmenters": {name: {"network": "Unet"}} | segmenters}
                    for name in ("unet_resnet18", "judge")
                ),
            )
        return self

    @property
    def budgets(self) -> list[LabelBudget]:
        """The parsed label budgets."""
        return [LabelBudget.parse(labels) for labels in self.labels]

    @property
    def trainings(self) -> list[tuple[str, str]]:
        """Every pair (segmenter, arm) that can be trained."""
        return [
            (segmenter, arm)
            for segmenter, network in self.segmenters.items()
            for arm, settings in self.arms.items()
            if network.supports(settings)
        ]


class ClassificationConfig(Section):
    """Classifiers of lesions, on the arms, label budgets and repetitions of the segmenters."""

    targets: tuple[Target, ...] = Field(
        ("pathology",),
        min_length=1,
        description="`pathology` (benign or malignant), `birads` (categories 2 to 5), or both",
    )
    network: str = Field(
        "resnet18",
        description="a network name of `timm.create_model`; trained from random weights",
    )
    training: DownstreamTrainingConfig

    @field_validator("targets")
    @classmethod
    def _unique(cls, targets: tuple[Target, ...]) -> tuple[Target, ...]:
        if len(unique := dict.fromkeys(targets)) < len(targets):
            raise InvalidSetting(f"{list(targets)} names a target twice", {"targets": list(unique)})
        return targets
