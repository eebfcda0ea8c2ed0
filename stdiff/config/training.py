"""The training stages' part of the configuration."""

from __future__ import annotations

import math
from typing import Literal, Self

from pydantic import Field, PositiveInt, model_validator

from stdiff.config.section import InvalidSetting, Section


class LoopConfig(Section):
    """Settings of the training loop; progress is counted in images."""

    images: int = Field(gt=0, examples=[6400], description="images to train on (with repetition)")
    batch: int = Field(32, gt=0, description="images in one optimizer step")
    learning_rate: float = Field(1e-3, gt=0, description="peak of the cosine schedule")
    warmup_images: int = Field(640, ge=0, description="images of linear warm-up")
    weight_decay: float = Field(0.01, ge=0, description="AdamW weight decay")
    max_gradient_norm: float = Field(1.0, gt=0, description="gradients are clipped to this norm")
    checkpoint_every_images: int = Field(6400, gt=0, description="images between checkpoints")
    keep_latest: int = Field(2, ge=1, description="number of checkpoints kept")
    microbatch: PositiveInt | None = Field(
        None,
        description="images computed at once, a divisor of batch, with gradient accumulation; "
        "null = the whole batch",
    )
    precision: Literal["float32", "bfloat16"] = Field(
        "float32", description="precision of autocast; weights are always float32"
    )
    compile: bool = Field(False, description="torch.compile; takes minutes, then trains faster")

    @model_validator(mode="after")
    def _whole_batches(self) -> Self:
        if self.images < self.batch:
            raise InvalidSetting(
                f"images {self.images} is less than one batch of {self.batch}",
                {"images": self.batch},
            )
        if self.microbatch and self.batch % self.microbatch:
            raise InvalidSetting(
                f"microbatch {self.microbatch} does not divide batch {self.batch}",
                {"microbatch": math.gcd(self.microbatch, self.batch)},
            )
        return self


class StageConfig(LoopConfig):
    """One training stage of the generator."""

    ema_decay: float = Field(0.998, ge=0, lt=1, description="EMA decay per step; 0 = no EMA")


class DenoisingConfig(StageConfig):
    """Settings that stages 1 and 2 share."""

    min_snr_gamma: float | None = Field(
        None,
        gt=0,
        examples=[5.0],
        description="weight time steps by min(SNR, gamma) (arXiv 2303.09556, which uses 5); null = "
        "equal weights",
    )
    gradient_checkpointing: bool = Field(
        False, description="recompute activations to save memory, at one more forward pass a step"
    )


class PretrainConfig(DenoisingConfig):
    """Stage 1: the whole U-Net on all training images, with the empty caption."""

    trains: Literal["unet", "controlnet on black masks", "nothing"] = Field(
        "unet",
        description="trained network: the published code trains the ControlNet on black masks and "
        "freezes the U-Net; `nothing` leaves all training to stage 2",
    )
    captions: bool = Field(
        False,
        description="use captions instead of the empty one (arXiv 2502.08580); they reveal labels",
    )


class FinetuneConfig(DenoisingConfig):
    """Stage 2: ControlNet and caption encoder, on labelled images."""

    train_unet: bool = Field(False, description="train the U-Net of stage 1 too")
    train_text_encoder: bool = Field(True, description="train the caption encoder")
    validate_every_images: PositiveInt | None = Field(
        None,
        description="images between validations by KID and mask Dice; the best weights are used; "
        "null = the last weights",
    )
    caption_dropout: float = Field(0.15, ge=0, le=1, description="share of captions left empty")
    foreground_weight: float | None = Field(
        None,
        gt=0,
        examples=[1.0],
        description="weight of the mean loss inside the gate; null = mean over the whole image, "
        "which gave better images (docs/results.md)",
    )
    background_weight: float = Field(
        0.5,
        ge=0,
        description="weight of the mean loss outside the gate; used only with foreground_weight",
    )
    background_hold: float = Field(
        0.0, ge=0, description="weight of the difference to stage 1's prediction outside the gate"
    )

    @model_validator(mode="after")
    def _stage_1_is_fixed(self) -> Self:
        if self.train_unet and self.background_hold:
            raise InvalidSetting(
                f"background_hold {self.background_hold} compares with stage 1, which train_unet: "
                "true changes",
                {"background_hold": 0},
            )
        return self


class DistillConfig(StageConfig):
    """Stage 3: a few-step student that imitates the guided teacher without guidance."""

    steps: int = Field(
        3, ge=1, description="sampling steps of the student, a divisor of sampler.steps"
    )
    learning_rate: float = Field(3e-4, gt=0, description="peak of the cosine schedule")


# No EMA downstream: its weights would not match the statistics that batch normalisation keeps.
class DownstreamTrainingConfig(LoopConfig):
    """Training of a downstream classifier or segmenter."""


class SegmenterTrainingConfig(DownstreamTrainingConfig):
    """Training of a segmenter."""

    validate_every_images: PositiveInt | None = Field(
        None,
        description="images between validations on real lesions; the weights with the best Dice "
        "are used; null = the last weights",
    )


class TrainingConfig(Section):
    """The training stages of the generator."""

    num_processes: PositiveInt = Field(
        1,
        description="processes on this machine, each with its own GPU, that share every batch; "
        "changes results by rounding only",
    )
    autoencoder: StageConfig | None = Field(
        None, description="stage 0; required unless model.checkpoint is set"
    )
    pretrain: PretrainConfig
    finetune: FinetuneConfig
    distill: DistillConfig | None = Field(
        None,
        description="stage 3; if set, its student generates the corpus, with its own steps and "
        "without guidance",
    )

    @model_validator(mode="after")
    def _batches_can_be_shared(self) -> Self:
        for name in ("autoencoder", "pretrain", "finetune", "distill"):
            stage: StageConfig | None = getattr(self, name)
            if stage and stage.batch % self.num_processes:
                whole = -(-stage.batch // self.num_processes) * self.num_processes
                raise InvalidSetting(
                    f"num_processes {self.num_processes} does not divide {name}.batch "
                    f"{stage.batch}",
                    {f"{name}.batch": whole},
                    {"num_processes": 1},
                )
        return self
