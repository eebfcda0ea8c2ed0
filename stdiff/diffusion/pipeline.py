"""Generating images from masks, captions and seeds with a model folder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from diffusers import DPMSolverMultistepScheduler

from stdiff.config_generator import SamplerConfig
from stdiff.device import compute_device
from stdiff.diffusion.autoencoder import decode
from stdiff.diffusion.condition import condition_image
from stdiff.diffusion.decoupling import denoise_as_stage_1, denoise_gated, soft_gates
from stdiff.diffusion.folder import load_model
from stdiff.diffusion.model import DiffusionModel
from stdiff.diffusion.parts import ModelFolderError
from stdiff.files import sha256_folder


@dataclass
class Generator:
    """A fine-tuned model, ready to sample; ``sha256`` is that of its folder."""

    model: DiffusionModel
    sha256: str

    @classmethod
    def load(cls, folder: Path) -> Generator:
        """Open a model folder made by `stdiff train finetune`.

        Raises:
            ModelFolderError: not a model folder, or one of stage 1.
        """
        model = load_model(folder)
        if model.about.get("stage") != "finetune":
            raise ModelFolderError(
                f"{folder}: knows neither masks nor captions yet; give the output of "
                "`stdiff train finetune`"
            )
        return cls(model.to(compute_device()), sha256_folder(folder))

    @property
    def size_px(self) -> int:
        """Side of the masks it takes and of the images it makes."""
        return self.model.size_px

    @torch.inference_mode()
    def generate(
        self,
        masks_NHW: np.ndarray,
        captions: Sequence[str],
        seeds: Sequence[int],
        sampler: SamplerConfig,
    ) -> np.ndarray:
        """Sample one batch; image i depends on row i alone, up to the batch's size.

        Args:
            masks_NHW: (N, size_px, size_px) uint8, non-zero on the lesion.
            captions: N captions as `lexicon.render` writes them.
            seeds: N integers; the noise is drawn on the CPU, so it is the same on every device.
            sampler: steps and guidance scales.

        Returns:
            (N, size_px, size_px) uint8 images.
        """
        if masks_NHW.shape[1:] != (self.size_px, self.size_px):
            raise ValueError(f"masks are {masks_NHW.shape[1:]}, the model takes {self.size_px} px")
        scheduler = DPMSolverMultistepScheduler.from_config(self.model.scheduler.config)
        scheduler.set_timesteps(sampler.steps)
        guided = _GuidedDenoiser(self.model, masks_NHW, captions, sampler)
        z_BCHW = self._noise(seeds).to(self.model.device)
        for t in scheduler.timesteps:
            z_BCHW = scheduler.step(guided(z_BCHW, t), t, z_BCHW).prev_sample
        return decode(self.model.autoencoder, z_BCHW)

    def _noise(self, seeds: Sequence[int]) -> torch.Tensor:
        side_px = self.model.latent_px
        shape = (self.model.unet.config.in_channels, side_px, side_px)
        return torch.stack(
            [torch.randn(shape, generator=torch.Generator().manual_seed(int(s))) for s in seeds]
        )


class _GuidedDenoiser:
    """Prediction guided away from stage 1, with a scale for the mask and one for the caption.

    v = v₀ + s_mask (v_mask - v₀) + s_text (v_mask,text - v_mask), v₀ being stage 1 itself: no
    ControlNet, no caption. With equal scales the middle branch cancels and is not computed.
    """

    def __init__(
        self,
        model: DiffusionModel,
        masks_NHW: np.ndarray,
        captions: Sequence[str],
        sampler: SamplerConfig,
    ) -> None:
        self.model, self.sampler = model, sampler
        told = model.condition
        self.gate = None
        if not model.gate.everywhere:
            self.gate = soft_gates(masks_NHW, model.gate).to(model.device)
        if told.mask:
            self.condition = condition_image(masks_NHW, told.image, captions).to(model.device)
        self.empty_BLD = model.empty_1LD.expand(len(captions), -1, -1)
        self.caption_BLD = model.embed(list(captions)) if told.text else self.empty_BLD

    def __call__(self, z_BCHW: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        base = denoise_as_stage_1(self.model.unet, z_BCHW, t, self.model.empty_1LD)
        full = self._conditioned(z_BCHW, t, self.caption_BLD)
        mask_scale, text_scale = self.sampler.mask_guidance, self.sampler.text_guidance
        if mask_scale == text_scale:
            return base + mask_scale * (full - base)
        mask = self._conditioned(z_BCHW, t, self.empty_BLD)
        return base + mask_scale * (mask - base) + text_scale * (full - mask)

    def _conditioned(
        self, z_BCHW: torch.Tensor, t: torch.Tensor, caption_BLD: torch.Tensor
    ) -> torch.Tensor:
        residuals = None
        if self.model.controlnet is not None:
            residuals = self.model.controlnet(
                z_BCHW, t, caption_BLD, controlnet_cond=self.condition, return_dict=False
            )
        return denoise_gated(
            self.model.unet, z_BCHW, t, caption_BLD, self.model.empty_1LD, self.gate, residuals
        )
