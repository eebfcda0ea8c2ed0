"""The generator's part of the configuration: model and sampler."""

from __future__ import annotations

from string import Formatter
from typing import Literal, Self

from pydantic import Field, NonNegativeInt, PositiveInt, model_validator

from stdiff.birads.lexicon import VOCABULARY
from stdiff.config.section import InvalidSetting, Section

# Fields of a caption template: the whole caption, or one of its findings.
TEMPLATE_FIELDS = ("caption", *VOCABULARY)


class AutoencoderConfig(Section):
    """Stage 0: a linear patch encoder (fitted in closed form) and a small learned decoder."""

    latent_channels: int = Field(
        8, ge=1, le=16, description="latent channels, at 1/4 of the image size"
    )
    decoder_channels: int = Field(32, ge=8, description="width of the decoder")
    decoder_blocks: tuple[NonNegativeInt, NonNegativeInt, NonNegativeInt] = Field(
        (3, 2, 0), description="residual blocks of the decoder at 1/4, 1/2 and full size"
    )


class UNetConfig(Section):
    """The U-Net."""

    channels: tuple[PositiveInt, ...] = Field(
        (32, 64, 128), min_length=1, description="channels at each resolution"
    )
    layers: int = Field(2, ge=1, description="residual blocks at each resolution")
    heads: int = Field(4, ge=1, description="number of attention heads")

    @model_validator(mode="after")
    def _divisible(self) -> Self:
        if bad := [c for c in self.channels if c % 32 or c % self.heads]:
            raise InvalidSetting(
                f"channels {bad} are not multiples of 32 and of heads ({self.heads})",
                {"channels": [32, 64, 128]},
                {"channels": [32, 64, 128], "heads": 4},
            )
        return self


class TextConfig(Section):
    """The caption encoder: a small CLIP text model with the lexicon's vocabulary."""

    width: int = Field(64, ge=16, description="width of the token embeddings")
    layers: int = Field(2, ge=1, description="transformer layers")
    heads: int = Field(4, ge=1, description="attention heads")
    tokens: int = Field(40, ge=32, description="longest caption, in tokens")
    template: str = Field(
        "{caption}",
        description="prompt for the encoder, with {caption} or findings such as {pathology}; an "
        "empty caption stays empty",
    )

    @model_validator(mode="after")
    def _divisible(self) -> Self:
        if self.width % self.heads:
            raise InvalidSetting(
                f"width {self.width} is not a multiple of heads {self.heads}",
                {"heads": 4},
                {"width": 64, "heads": 4},
            )
        return self

    @model_validator(mode="after")
    def _known_fields(self) -> Self:
        try:
            fields = [
                name for _, name, _, _ in Formatter().parse(self.template) if name is not None
            ]
        except ValueError as error:
            raise InvalidSetting(
                f"template {self.template!r}: {error}", {"template": "{caption}"}
            ) from error
        if unknown := sorted({name for name in fields if name not in TEMPLATE_FIELDS}):
            raise InvalidSetting(
                f"template {self.template!r} has unknown fields {', '.join(unknown)}; known are "
                f"{', '.join(TEMPLATE_FIELDS)}",
                {"template": "{caption}"},
            )
        return self


class ConditionConfig(Section):
    """Conditions of the generator."""

    mask: bool = Field(True, description="condition on lesion masks (ControlNet)")
    text: bool = Field(True, description="condition on captions")
    # Always three channels, so that any ControlNet pipeline takes the condition as an RGB image.
    image: tuple[Literal["mask", "soft mask", "distance", "boundary"], ...] = Field(
        ("mask", "distance", "boundary"),
        min_length=1,
        max_length=3,
        description="channels of the condition image; fewer than three are repeated; `[mask]` is "
        "the published form, `soft mask` blurs the edge of lesions with an indistinct margin",
    )
    embedder_channels: tuple[PositiveInt, ...] | None = Field(
        None,
        description="channels of the condition's embedder at full size and at each halving down to "
        "the latent size; null = 16, 32, 64 for 1/4 and 16, 32, 96, 256 for 1/8",
    )

    @model_validator(mode="after")
    def _has_a_condition(self) -> Self:
        if not (self.mask or self.text):
            raise InvalidSetting(
                "mask and text are both false, so stage 2 has nothing to learn", {"mask": True}
            )
        return self


class AdapterConfig(Section):
    """Low-rank adapters of attention (LoRA, arXiv 2106.09685)."""

    rank: int = Field(16, ge=1, description="rank of the weight update")
    alpha: float = Field(32.0, gt=0, description="the update is scaled by alpha over rank")


class GateConfig(Section):
    """The soft gate that decouples foreground and background."""

    everywhere: bool = Field(
        False,
        description="no gate: mask and caption act on the whole image, as in plain ControlNet; "
        "margin and posterior then only divide the loss",
    )
    margin: float = Field(
        0.08, gt=0, le=0.5, description="width of its soft edge, as a fraction of the image side"
    )
    posterior: float = Field(
        0.5,
        ge=0,
        le=1,
        description="how far below the lesion it extends, as a fraction of the image side",
    )


class NoiseConfig(Section):
    """The forward process, and what the U-Net predicts."""

    prediction: Literal["v_prediction", "epsilon"] = Field(
        "v_prediction", description="prediction type (v: arXiv 2202.00512)"
    )
    zero_terminal_snr: bool = Field(
        True, description="the last time step is pure noise (arXiv 2305.08891)"
    )

    @model_validator(mode="after")
    def _can_be_inverted(self) -> Self:
        if self.prediction == "epsilon" and self.zero_terminal_snr:
            raise InvalidSetting(
                "prediction epsilon does not determine the image in pure noise",
                {"zero_terminal_snr": False},
            )
        return self


class ModelConfig(Section):
    """The generator's networks."""

    checkpoint: str | None = Field(
        None,
        description="Stable Diffusion 1.x or 2.x model to start from: a folder, or the hub name of "
        "a downloaded model; replaces `autoencoder`, `unet`, `noise` and the encoder in `text`",
    )
    autoencoder: AutoencoderConfig = AutoencoderConfig()
    unet: UNetConfig = UNetConfig()
    text: TextConfig = TextConfig()
    noise: NoiseConfig = NoiseConfig()
    condition: ConditionConfig = ConditionConfig()
    gate: GateConfig = GateConfig()
    text_lora: AdapterConfig | None = Field(
        None, description="stage 2 trains adapters of the caption encoder, not its own weights"
    )
    unet_lora: AdapterConfig | None = Field(
        None, description="stage 2 also trains adapters of the U-Net's cross-attention"
    )

    @model_validator(mode="after")
    def _checkpoint_replaces_sections(self) -> Self:
        if self.checkpoint is None:
            return self
        replaced = {
            "autoencoder": self.autoencoder != AutoencoderConfig(),
            "unet": self.unet != UNetConfig(),
            "noise": self.noise != NoiseConfig(),
            "text": self.text.model_copy(update={"template": TextConfig().template})
            != TextConfig(),
        }
        if given := [name for name, differs in replaced.items() if differs]:
            raise InvalidSetting(
                f"checkpoint {self.checkpoint!r} brings its own {', '.join(given)}; remove those "
                "sections (text may keep its template), or the checkpoint",
                {"checkpoint": None},
            )
        return self

    @model_validator(mode="after")
    def _gate_hides_the_mask(self) -> Self:
        if not self.condition.mask and not self.gate.everywhere:
            raise InvalidSetting(
                "condition.mask is false, but the gate would reveal the lesion's position",
                {"gate": {"everywhere": True}},
            )
        return self


class SamplerConfig(Section):
    """How images are sampled; every key changes the images."""

    solver: Literal["dpm-solver++", "unipc"] = Field(
        "dpm-solver++",
        description="second-order solver: DPM-Solver++ (arXiv 2211.01095) or UniPC (arXiv "
        "2302.04867)",
    )
    steps: int = Field(6, ge=1, le=1000, description="sampling steps")
    mask_guidance: float = Field(
        2.0, ge=0, description="guidance scale of the mask, against stage 1"
    )
    text_guidance: float = Field(
        2.0, ge=0, description="guidance scale of the caption, against the mask alone"
    )
    guidance_from: float = Field(
        0.5,
        ge=0,
        lt=1,
        description="share of the steps before these two scales apply; until then the mask is a "
        "condition without guidance, which costs less",
    )
    early_text_guidance: float = Field(
        5.0,
        ge=0,
        description="guidance scale of the caption in the steps before; 1 = no guidance: sampling "
        "is a third faster, and images follow captions less",
    )
    precision: Literal["float32", "bfloat16"] = Field(
        "float32",
        description="precision of the decoder, and on a GPU of the U-Net too (on a CPU it gains "
        "nothing)",
    )
    compiled: bool = Field(
        False, description="torch.compile; takes minutes, for shards of many images"
    )
    batch: int = Field(
        50, ge=1, description="images sampled together; changing it changes the corpus"
    )
