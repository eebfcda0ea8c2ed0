"""The generator's part of the configuration: its parts, training stages and sampler."""

from __future__ import annotations

import math
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


class ConditionConfig(Section):
    """What the generator is told of a lesion."""

    mask: bool = Field(True, description="where it is (ControlNet)")
    text: bool = Field(True, description="what it is like (captions)")
    # Three channels always, so that any ControlNet pipeline takes the condition as an RGB picture.
    image: tuple[Literal["mask", "distance", "boundary"], ...] = Field(
        ("mask", "distance", "boundary"),
        min_length=1,
        max_length=3,
        description="channels of the ControlNet's picture; fewer than three are repeated, "
        "`[mask]` is the published form",
    )
    embedder_channels: tuple[PositiveInt, ...] = Field(
        (16, 32, 64),
        min_length=3,
        max_length=4,
        description="width of the picture's embedder at 1, 1/2, 1/4 size",
    )

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        if not (self.mask or self.text):
            raise ValueError(
                "mask and text are both false, so that stage 2 has nothing to learn; e.g. mask: "
                "true"
            )
        return self


class GateConfig(Section):
    """The soft gate that parts foreground from background."""

    everywhere: bool = Field(
        False,
        description="no gate: mask and caption reach the whole image, as in plain ControlNet; "
        "margin and posterior then only part the loss",
    )

    margin: float = Field(
        0.08, gt=0, le=0.5, description="width over which it falls off, as a fraction of the side"
    )
    posterior: float = Field(
        0.5,
        ge=0,
        le=1,
        description="how far beneath the lesion it reaches, as a fraction of the side",
    )


class NoiseConfig(Section):
    """The forward process, and what the denoiser predicts."""

    prediction: Literal["velocity", "noise"] = Field(
        "velocity", description="what is predicted (velocity: arXiv 2202.00512)"
    )
    zero_terminal_snr: bool = Field(
        True, description="the last step is pure noise (arXiv 2305.08891)"
    )

    @model_validator(mode="after")
    def _can_be_inverted(self) -> Self:
        if self.prediction == "noise" and self.zero_terminal_snr:
            raise ValueError(
                "prediction 'noise' tells nothing of an image in pure noise; e.g. prediction: "
                "noise, zero_terminal_snr: false"
            )
        return self


class ModelConfig(Section):
    """The generator's parts."""

    autoencoder: AutoencoderConfig = AutoencoderConfig()
    unet: UNetConfig = UNetConfig()
    text: TextConfig = TextConfig()
    noise: NoiseConfig = NoiseConfig()
    condition: ConditionConfig = ConditionConfig()
    gate: GateConfig = GateConfig()

    @model_validator(mode="after")
    def _gate_tells_no_mask(self) -> Self:
        if not self.condition.mask and not self.gate.everywhere:
            raise ValueError(
                "condition.mask is false, but a gate around the lesion would tell where it is; "
                "e.g. gate: {everywhere: true}"
            )
        return self


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


class FinetuneConfig(DenoisingConfig):
    """Stage 2: ControlNet and caption encoder, on labelled images."""

    denoiser: bool = Field(False, description="train the denoiser too, which stage 1 made")
    text_encoder: bool = Field(True, description="train the caption encoder")
    caption_dropout: float = Field(0.15, ge=0, le=1, description="captions left empty")
    foreground_weight: float | None = Field(
        1.0,
        gt=0,
        description="weight of the gate's inside in the loss, averaged by itself; null = one mean "
        "over the whole image",
    )
    background_weight: float = Field(
        0.5, ge=0, description="weight of the gate's outside, averaged by itself"
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


class SegmenterTrainingConfig(StageConfig):
    """Training of a segmenter."""

    # An average of weights would not fit the statistics that batch normalisation keeps.
    ema_decay: Literal[0] = Field(0, description="not used for segmenters")


class TrainingConfig(Section):
    """The three stages of the generator."""

    autoencoder: StageConfig
    pretrain: PretrainConfig
    finetune: FinetuneConfig


class SamplerConfig(Section):
    """How images are sampled; anything here changes the picture."""

    steps: int = Field(10, ge=1, description="DPM-Solver++ steps")
    mask_guidance: float = Field(2.0, ge=0, description="scale of the mask against stage 1")
    text_guidance: float = Field(2.0, ge=0, description="scale of the caption against mask alone")
    batch: int = Field(50, ge=1, description="images denoised together; part of a corpus' identity")
