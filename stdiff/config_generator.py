"""The generator's part of the configuration: its parts, training stages and sampler."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, PositiveInt, model_validator


class Section(BaseModel):
    """A part of the configuration: unknown keys are refused, values do not change later."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class AutoencoderConfig(Section):
    """Stage 0: a linear patch encoder (fitted in closed form) and a small learned decoder."""

    latent_channels: int = Field(8, ge=1, le=16, description="channels of the latent, at 1/4 size")
    decoder_channels: int = Field(32, ge=8, description="width of the decoder")
    decoder_blocks: tuple[int, int, int] = Field(
        (3, 2, 0), description="residual blocks of the decoder at 1/4, 1/2 and full size"
    )


class UNetConfig(Section):
    """The denoiser."""

    channels: tuple[int, ...] = Field(
        (32, 64, 128), min_length=1, description="width of each resolution"
    )
    layers: int = Field(2, ge=1, description="residual blocks of each resolution")
    heads: int = Field(4, ge=1, description="attention heads (their number, not their width)")

    @model_validator(mode="after")
    def _divisible(self) -> Self:
        if bad := [c for c in self.channels if c % 32 or c % self.heads]:
            raise ValueError(
                f"channels {bad} are not multiples of 32 and of heads ({self.heads}); "
                "e.g. channels: [32, 64, 128]"
            )
        return self


class TextConfig(Section):
    """The caption encoder: a small CLIP text model over the lexicon's words."""

    width: int = Field(64, ge=16, description="width of the token embeddings")
    layers: int = Field(2, ge=1, description="transformer layers")
    heads: int = Field(4, ge=1, description="attention heads")
    tokens: int = Field(40, ge=32, description="longest caption, in words")

    @model_validator(mode="after")
    def _divisible(self) -> Self:
        if self.width % self.heads:
            raise ValueError(
                f"width {self.width} is not a multiple of heads {self.heads}; e.g. heads: 4"
            )
        return self


class GateConfig(Section):
    """The soft gate that parts foreground from background."""

    margin: float = Field(
        0.08, gt=0, le=0.5, description="width over which it falls off, as a fraction of the side"
    )
    posterior: float = Field(
        0.5,
        ge=0,
        le=1,
        description="how far beneath the lesion it reaches, as a fraction of the side",
    )


class ModelConfig(Section):
    """The generator's parts."""

    autoencoder: AutoencoderConfig = AutoencoderConfig()
    unet: UNetConfig = UNetConfig()
    text: TextConfig = TextConfig()
    gate: GateConfig = GateConfig()
    condition_channels: tuple[PositiveInt, PositiveInt, PositiveInt] = Field(
        (16, 32, 64), description="width of the ControlNet's condition embedder at 1, 1/2, 1/4 size"
    )


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

    @model_validator(mode="after")
    def _whole_batches(self) -> Self:
        if self.images < self.batch:
            raise ValueError(
                f"images {self.images} is less than one batch of {self.batch}; "
                f"e.g. images: {self.batch}"
            )
        return self


class FinetuneConfig(StageConfig):
    """Stage 2: ControlNet and caption encoder, on labelled images."""

    caption_dropout: float = Field(0.15, ge=0, le=1, description="captions left empty")
    foreground_weight: float = Field(
        1.0, gt=0, description="weight of the gate's inside in the loss, averaged by itself"
    )
    background_weight: float = Field(
        0.5, ge=0, description="weight of the gate's outside, averaged by itself"
    )


class SegmenterTrainingConfig(StageConfig):
    """Training of a segmenter."""

    # An average of weights would not fit the statistics that batch normalisation keeps.
    ema_decay: Literal[0] = Field(0, description="not used for segmenters")


class TrainingConfig(Section):
    """The three stages of the generator."""

    autoencoder: StageConfig
    pretrain: StageConfig
    finetune: FinetuneConfig


class SamplerConfig(Section):
    """How images are sampled; anything here changes the picture."""

    steps: int = Field(10, ge=1, description="DPM-Solver++ steps")
    mask_guidance: float = Field(2.0, ge=0, description="scale of the mask against stage 1")
    text_guidance: float = Field(2.0, ge=0, description="scale of the caption against mask alone")
    batch: int = Field(50, ge=1, description="images denoised together; part of a corpus' identity")
