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
from stdiff.diffusion.autoencoder import PATCH_PX, decode
from stdiff.diffusion.decoupling import denoise_gated, gates_of
from stdiff.diffusion.denoiser import CONDITION_CHANNELS
from stdiff.diffusion.folder import DiffusionModel, ModelFolderError, load_model
from stdiff.files import sha256_folder


def condition_image(masks_NHW: np.ndarray) -> torch.Tensor:
    """(N, 3, H, W) float32 condition of the ControlNet: the mask, 0 or 1, in equal channels."""
    mask = torch.from_numpy(masks_NHW > 0).float()[:, None]
    return mask.expand(-1, CONDITION_CHANNELS, -1, -1)


@dataclass
class Generator:
    """A fine-tuned model, ready to sample; ``sha256`` is that of its folder."""

    model: DiffusionModel
    sha256: str

    @classmethod
    def load(cls, folder: Path) -> Generator:
        """Open a model folder made by `stdiff train finetune`.

        Raises:
            ModelFolderError: not a model folder, or one without a ControlNet.
        """
        model = load_model(folder)
        if model.controlnet is None:
            raise ModelFolderError(
                f"{folder}: has no ControlNet, so it cannot follow a mask; give the output of "
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
        side = self.size_px // PATCH_PX
        shape = (self.model.unet.config.in_channels, side, side)
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
        self.condition = condition_image(masks_NHW).to(model.device)
        self.gate = gates_of(masks_NHW, model.gate).to(model.device)
        self.caption_BLD = model.embed(list(captions))
        self.empty_BLD = model.empty_1LD.expand(len(captions), -1, -1)

    def __call__(self, z_BCHW: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        base = self.model.unet(z_BCHW, t, encoder_hidden_states=self.empty_BLD).sample
        full = self._conditioned(z_BCHW, t, self.caption_BLD)
        mask_scale, text_scale = self.sampler.mask_guidance, self.sampler.text_guidance
        if mask_scale == text_scale:
            return base + mask_scale * (full - base)
        mask = self._conditioned(z_BCHW, t, self.empty_BLD)
        return base + mask_scale * (mask - base) + text_scale * (full - mask)

    def _conditioned(
        self, z_BCHW: torch.Tensor, t: torch.Tensor, caption_BLD: torch.Tensor
    ) -> torch.Tensor:
        residuals = self.model.controlnet(
            z_BCHW, t, caption_BLD, controlnet_cond=self.condition, return_dict=False
        )
        return denoise_gated(
            self.model.unet, z_BCHW, t, caption_BLD, self.model.empty_1LD, self.gate, residuals
        )
