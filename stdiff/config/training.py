"""The training stages' part of the configuration."""

from __future__ import annotations

import math
from typing import Literal, Self

from pydantic import Field, PositiveInt, model_validator

from stdiff.config.generator import Section


class StageConfig(Section):
    """One training stage; progress is counted in images."""

    images: int = Field(gt=0, description="images to train on (with repetition)")
    batch: int = Field(32, gt=0, description="images in one optimisation step")
    learning_rate: float = Field(1e-3, gt=0, description="peak of the cosine schedule")
    warmup_images: int = Field(640, ge=0, description="images of linear warm-up")
    weight_decay: float = Field(0.01, ge=0, description="AdamW weight decay")
    max_gradient_norm: float = Field(1.0, gt=0, description="gradients are clipped to this norm")
    ema_decay: float = Field(0.998, ge=0, lt=1, description="decay a step of the averaged weights")
    checkpoint_every_images: int = Field(6400, gt=0, description="images between checkpoints")
    keep_latest: int = Field(2, ge=1, description="checkpoints that are kept")
    microbatch: PositiveInt | None = Field(
        None,
        description="images in memory at once, a divisor of batch: gradients are accumulated over "
        "them; null = the whole batch",
    )
    precision: Literal["float32", "bfloat16"] = Field(
        "float32", description="of the computation (autocast); weights are float32 always"
    )
    compile: bool = Field(False, description="torch.compile; minutes at the start, then faster")

    @model_validator(mode="after")
    def _whole_batches(self) -> Self:
        if self.images < self.batch:
            raise ValueError(
                f"images {self.images} is less than one batch of {self.batch}; "
                f"e.g. images: {self.batch}"
            )
        if self.microbatch and self.batch % self.microbatch:
            raise ValueError(
                f"microbatch {self.microbatch} does not divide batch {self.batch}; e.g. "
                f"microbatch: {math.gcd(self.microbatch, self.batch)}"
            )
        return self


class DenoisingConfig(StageConfig):
    """What both stages of the denoiser have in common."""

    min_snr_gamma: float | None = Field(
        None,
        gt=0,
        description="weights time steps by min(SNR, gamma) (arXiv 2303.09556, there 5); null = all "
        "alike",
    )
    gradient_checkpointing: bool = Field(
        False, description="less memory, each step computed once more"
    )


class PretrainConfig(DenoisingConfig):
    """Stage 1: the whole denoiser on all training images, with the empty caption."""

    trains: Literal["denoiser", "controlnet on black masks", "nothing"] = Field(
        "denoiser",
        description="the published code trains the ControlNet on black masks and leaves the "
        "denoiser as it was; `nothing` leaves all of it to stage 2",
    )
    captions: bool = Field(
        False,
        description="with captions instead of the empty one (arXiv 2502.08580); they tell labels",
    )


class FinetuneConfig(DenoisingConfig):
    """Stage 2: ControlNet and caption encoder, on labelled images."""

    denoiser: bool = Field(False, description="train the denoiser too, which stage 1 made")
    text_encoder: bool = Field(True, description="train the caption encoder")
    watch_every_images: PositiveInt | None = Field(
        None,
        description="images between looks at what the model makes of validation masks; the weights "
        "that look best are used; null = the last ones",
    )
    caption_dropout: float = Field(0.15, ge=0, le=1, description="captions left empty")
    foreground_weight: float | None = Field(
        None,
        gt=0,
        description="weight of the gate's inside in the loss, averaged by itself; null = one mean "
        "over the whole image, which looked better (docs/results.md)",
    )
    background_weight: float = Field(
        0.5,
        ge=0,
        description="weight of the gate's outside, averaged by itself, beside foreground_weight",
    )
    background_hold: float = Field(
        0.0, ge=0, description="weight of the difference to stage 1's prediction outside the gate"
    )

    @model_validator(mode="after")
    def _holds_to_something(self) -> Self:
        if self.denoiser and self.background_hold:
            raise ValueError(
                f"background_hold {self.background_hold} holds to stage 1, which denoiser: true "
                "changes; e.g. background_hold: 0"
            )
        return self


class DistillConfig(StageConfig):
    """Stage 3: a model that needs few steps and no guidance. Its images are made on the way."""

    steps: int = Field(
        3,
        ge=1,
        description="of the model made, a divisor of sampler.steps, which are the teacher's",
    )
    learning_rate: float = Field(3e-4, gt=0, description="peak of the cosine schedule")


class DownstreamTrainingConfig(StageConfig):
    """Training of a network that a corpus is to help."""

    # An average of weights would not fit the statistics that batch normalisation keeps.
    ema_decay: Literal[0] = Field(0, description="not used here")


class SegmenterTrainingConfig(DownstreamTrainingConfig):
    """Training of a segmenter."""

    validate_every_images: PositiveInt | None = Field(
        None,
        description="images between looks at the real validation lesions; the weights with the "
        "best Dice are used; null = the last ones",
    )


class TrainingConfig(Section):
    """The stages of the generator."""

    num_processes: PositiveInt = Field(
        1,
        description="processes of one machine, each with a GPU of its own, that share every batch; "
        "their number changes no result by more than rounding",
    )
    autoencoder: StageConfig | None = Field(
        None, description="stage 0; needed unless model.checkpoint brings an autoencoder"
    )
    pretrain: PretrainConfig
    finetune: FinetuneConfig
    distill: DistillConfig | None = Field(
        None,
        description="stage 3; the corpus is then made by its model, whose steps and guidance take "
        "the place of the sampler's",
    )

    @model_validator(mode="after")
    def _batches_can_be_shared(self) -> Self:
        for name in ("autoencoder", "pretrain", "finetune", "distill"):
            stage: StageConfig | None = getattr(self, name)
            if stage and stage.batch % self.num_processes:
                whole = -(-stage.batch // self.num_processes) * self.num_processes
                raise ValueError(
                    f"num_processes {self.num_processes} cannot share {name}.batch {stage.batch} "
                    f"evenly; e.g. {name}.batch: {whole}"
                )
        return self
