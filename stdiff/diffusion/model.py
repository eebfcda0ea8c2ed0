"""The model: standard diffusers components and how they were trained."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    AutoencoderTiny,
    ControlNetModel,
    DPMSolverMultistepScheduler,
    UNet2DConditionModel,
)
from transformers import CLIPTextModel, PreTrainedTokenizerBase

from stdiff.birads.lexicon import Findings, parse
from stdiff.config.generator import ConditionConfig, GateConfig, ModelConfig
from stdiff.config.run import Config
from stdiff.diffusion.adapters import add_text_adapters, add_unet_adapters
from stdiff.diffusion.autoencoder import latent_factor
from stdiff.diffusion.checkpoint import load_checkpoint
from stdiff.diffusion.decoupling import gate_attention
from stdiff.diffusion.text import build_text_encoder, build_tokenizer, tokenize
from stdiff.diffusion.unet import build_scheduler, build_unet
from stdiff.runtime.randomness import integer_seed


@dataclass
class DiffusionModel:
    """The components of an ST-Diff model.

    Attributes:
        empty_1LD: (1, L, D) embedding of the empty caption that stage 1 was trained with.
        controlnet: None after stage 1.
        about: content of ``stdiff.json``.
    """

    autoencoder: AutoencoderTiny | AutoencoderKL
    tokenizer: PreTrainedTokenizerBase
    text_encoder: CLIPTextModel
    unet: UNet2DConditionModel
    scheduler: DPMSolverMultistepScheduler
    empty_1LD: torch.Tensor
    controlnet: ControlNetModel | None
    about: dict[str, Any]

    @property
    def size_px(self) -> int:
        """Side of the images, in pixels."""
        return self.about["size_px"]

    @property
    def latent_px(self) -> int:
        """Side of the latents, in latent pixels."""
        return self.size_px // latent_factor(self.autoencoder)

    @property
    def gate(self) -> GateConfig:
        """The gate it was trained with."""
        return GateConfig(**self.about["model"]["gate"])

    @property
    def condition(self) -> ConditionConfig:
        """Its conditions."""
        return ConditionConfig(**self.about["model"]["condition"])

    @property
    def device(self) -> torch.device:
        """Device of its components."""
        return self.unet.device

    def to(self, device: torch.device) -> DiffusionModel:
        """Move all components, in place."""
        for part in (self.autoencoder, self.text_encoder, self.unet, self.controlnet):
            if part is not None:
                part.to(device)
        self.empty_1LD = self.empty_1LD.to(device)
        return self

    def prompt(self, caption: str) -> str:
        """The encoder's input for a caption; empty for the empty caption."""
        return prompt_of(caption, self.about["model"]["text"]["template"])

    def embed(self, captions: list[str]) -> torch.Tensor:
        """(B, L, D) caption embeddings; that of the empty caption is stage 1's."""
        distinct = sorted(set(captions))
        ids = tokenize(self.tokenizer, [self.prompt(caption) for caption in distinct])
        embedded = self.text_encoder(ids.to(self.device)).last_hidden_state
        rows = {caption: embedded[i] for i, caption in enumerate(distinct)} | {
            "": self.empty_1LD[0]
        }
        return torch.stack([rows[caption] for caption in captions])


def prompt_of(caption: str, template: str) -> str:
    """The template filled with a caption's findings; unknown findings are left out."""
    if not caption or template == "{caption}":
        return caption
    findings = {
        name: " and ".join(value) if isinstance(value, list) else value or ""
        for name, value in Findings.as_row(parse(caption)).items()
    }
    prompt = template.format(caption=caption, **findings)
    # An omitted finding leaves surplus blanks and commas.
    for surplus, kept in ((r"\s+", " "), (r"(,\s*)+,", ","), (r"\s+(?=[,.:])", "")):
        prompt = re.sub(surplus, kept, prompt)
    return prompt.strip()


def new_model(config: Config, autoencoder: AutoencoderTiny | AutoencoderKL) -> DiffusionModel:
    """A model before stage 1 with this autoencoder: random weights, or a checkpoint's."""
    about = {"size_px": config.image.size_px, "model": config.model.model_dump(mode="json")}
    if config.model.checkpoint:
        base = load_checkpoint(config.model.checkpoint)
        gate_attention(base.unet)
        return DiffusionModel(
            *(autoencoder, base.tokenizer, base.text_encoder, base.unet, base.scheduler),
            *(base.empty_1LD, None, about),
        )
    tokenizer = build_tokenizer(config.model.text)
    text_seed = integer_seed(config.seed, "text encoder weights")
    text_encoder = build_text_encoder(config.model.text, tokenizer, text_seed).eval()
    latent_px = config.image.size_px // latent_factor(autoencoder)
    unet = build_unet(config.model, latent_px, integer_seed(config.seed, "unet weights"))
    gate_attention(unet)
    with torch.no_grad():
        empty_1LD = text_encoder(tokenize(tokenizer, [""])).last_hidden_state
    scheduler = build_scheduler(config.model.noise)
    return DiffusionModel(
        autoencoder, tokenizer, text_encoder, unet, scheduler, empty_1LD, None, about
    )


def add_adapters(model: DiffusionModel, config: ModelConfig, seed: int) -> None:
    """Add the configured adapters to caption encoder and U-Net."""
    if config.text_lora:
        add_text_adapters(
            model.text_encoder, config.text_lora, integer_seed(seed, "text adapter weights")
        )
    if config.unet_lora:
        add_unet_adapters(model.unet, config.unet_lora, integer_seed(seed, "unet adapter weights"))
