"""The generator's part of the configuration: its parts and its sampler."""

from __future__ import annotations

from string import Formatter
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, PositiveInt, model_validator

from stdiff.birads.lexicon import VOCABULARY

# What a template of captions may ask for: the whole of it, or one of its findings.
TEMPLATE_FIELDS = ("caption", *VOCABULARY)


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
    template: str = Field(
        "{caption}",
        description="what the encoder reads: text with {caption} or findings such as {pathology}; "
        "an empty caption stays empty",
    )

    @model_validator(mode="after")
    def _divisible(self) -> Self:
        if self.width % self.heads:
            raise ValueError(
                f"width {self.width} is not a multiple of heads {self.heads}; e.g. heads: 4"
            )
        return self

    @model_validator(mode="after")
    def _known_fields(self) -> Self:
        try:
            asked = [name for _, name, _, _ in Formatter().parse(self.template) if name is not None]
        except ValueError as error:
            raise ValueError(
                f"template {self.template!r}: {error}; e.g. template: '{{caption}}'"
            ) from error
        if unknown := sorted({name for name in asked if name not in TEMPLATE_FIELDS}):
            raise ValueError(
                f"template {self.template!r} asks for {', '.join(unknown)}; known are "
                f"{', '.join(TEMPLATE_FIELDS)}; e.g. template: '{{caption}}'"
            )
        return self


class ConditionConfig(Section):
    """What the generator is told of a lesion."""

    mask: bool = Field(True, description="where it is (ControlNet)")
    text: bool = Field(True, description="what it is like (captions)")
    # Three channels always, so that any ControlNet pipeline takes the condition as an RGB picture.
    image: tuple[Literal["mask", "soft mask", "distance", "boundary"], ...] = Field(
        ("mask", "distance", "boundary"),
        min_length=1,
        max_length=3,
        description="channels of the ControlNet's picture; fewer than three are repeated, "
        "`[mask]` is the published form, `soft mask` blurs the edge where the caption says "
        "indistinct margin",
    )
    embedder_channels: tuple[PositiveInt, ...] | None = Field(
        None,
        description="width of the picture's embedder at full size and at each half of it down to "
        "the latents'; null = 16, 32, 64 down to 1/4, and 16, 32, 96, 256 down to 1/8",
    )

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        if not (self.mask or self.text):
            raise ValueError(
                "mask and text are both false, so that stage 2 has nothing to learn; e.g. mask: "
                "true"
            )
        return self


class AdapterConfig(Section):
    """Low-rank adapters of attention (LoRA, arXiv 2106.09685)."""

    rank: int = Field(16, ge=1, description="rank of the update of each weight")
    alpha: float = Field(32.0, gt=0, description="the update is scaled by alpha over rank")


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

    checkpoint: str | None = Field(
        None,
        description="folder, or hub name of what was downloaded, of a Stable Diffusion 1.x or 2.x "
        "model: its parts take the place of `autoencoder`, `unet`, `noise` and of the encoder in "
        "`text`",
    )
    autoencoder: AutoencoderConfig = AutoencoderConfig()
    unet: UNetConfig = UNetConfig()
    text: TextConfig = TextConfig()
    noise: NoiseConfig = NoiseConfig()
    condition: ConditionConfig = ConditionConfig()
    gate: GateConfig = GateConfig()
    text_lora: AdapterConfig | None = Field(
        None, description="stage 2 trains adapters of the caption encoder instead of all of it"
    )
    unet_lora: AdapterConfig | None = Field(
        None, description="stage 2 also trains adapters of the denoiser's cross-attention"
    )

    @model_validator(mode="after")
    def _checkpoint_brings_its_own(self) -> Self:
        if self.checkpoint is None:
            return self
        replaced = {
            "autoencoder": self.autoencoder != AutoencoderConfig(),
            "unet": self.unet != UNetConfig(),
            "noise": self.noise != NoiseConfig(),
            "text": self.text.model_copy(update={"template": TextConfig().template})
            != TextConfig(),
        }
        if said := [name for name, differs in replaced.items() if differs]:
            raise ValueError(
                f"checkpoint {self.checkpoint!r} brings its own {', '.join(said)}; remove those "
                "sections (text may keep its template), or set checkpoint: null"
            )
        return self

    @model_validator(mode="after")
    def _gate_tells_no_mask(self) -> Self:
        if not self.condition.mask and not self.gate.everywhere:
            raise ValueError(
                "condition.mask is false, but a gate around the lesion would tell where it is; "
                "e.g. gate: {everywhere: true}"
            )
        return self


class SamplerConfig(Section):
    """How images are sampled; anything here changes the picture."""

    solver: Literal["dpm-solver++", "unipc"] = Field(
        "dpm-solver++",
        description="of the sampling equation: DPM-Solver++ (arXiv 2211.01095) or UniPC (arXiv "
        "2302.04867), both of second order",
    )
    steps: int = Field(6, ge=1, description="evaluations of the denoiser")
    mask_guidance: float = Field(2.0, ge=0, description="scale of the mask against stage 1")
    text_guidance: float = Field(2.0, ge=0, description="scale of the caption against mask alone")
    guidance_from: float = Field(
        0.5,
        ge=0,
        lt=1,
        description="share of the steps that pass before guidance by these two begins; until then "
        "the mask is only told, which costs less",
    )
    early_text_guidance: float = Field(
        5.0,
        ge=0,
        description="scale of the caption in the steps before; 1 tells it only, which costs less: "
        "images are made a third faster, and show less of what captions ask for",
    )
    precision: Literal["float32", "bfloat16"] = Field(
        "float32",
        description="number format: of the decoder on a CPU, where the denoiser gains nothing, and "
        "of both on a GPU",
    )
    compiled: bool = Field(
        False, description="compile the networks first (minutes); for shards of many images"
    )
    batch: int = Field(50, ge=1, description="images denoised together; part of a corpus' identity")
