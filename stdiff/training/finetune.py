"""Stage 2: ControlNet and caption encoder on labelled images; stage 1 is frozen.

Foreground (inside the gate) and background are averaged separately and weighted, so that a small
lesion weighs as much as a large one. There is no dropout of masks: without a mask the gate is
closed, the output is stage 1 whatever the weights, and nothing would be learned.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import nn
from torch.nn.functional import adaptive_avg_pool2d

from stdiff.config_generator import FinetuneConfig
from stdiff.diffusion.decoupling import denoise_gated, gates_of
from stdiff.diffusion.denoiser import NoiseSchedule
from stdiff.diffusion.folder import DiffusionModel
from stdiff.diffusion.pipeline import condition_image


class FinetuneStage:
    """Predict the velocity of noisy latents given mask and caption."""

    def __init__(
        self,
        model: DiffusionModel,
        latents_N2CHW: torch.Tensor,
        masks_NHW: np.ndarray,
        captions: list[str],
        settings: FinetuneConfig,
    ) -> None:
        self.model, self.settings = model, settings
        model.unet.requires_grad_(False)
        self.modules = nn.ModuleDict(
            {"controlnet": model.controlnet, "text_encoder": model.text_encoder}
        )
        self.latents_N2CHW = latents_N2CHW
        both = [masks_NHW, np.ascontiguousarray(masks_NHW[:, :, ::-1])]
        self.masks_N2HW = np.stack(both, axis=1)
        gates = [gates_of(masks, model.gate) for masks in both]
        self.gates_N21HW = torch.stack(gates, dim=1)
        self.captions = captions
        self.schedule = NoiseSchedule(model.scheduler)
        self.count = len(captions)

    def loss(
        self, indices: np.ndarray, rng: torch.Generator
    ) -> tuple[torch.Tensor, dict[str, float]]:
        """Weighted squared error of the velocity, foreground and background apart."""
        mirrored = torch.randint(2, (len(indices),), generator=rng)
        silent = torch.rand(len(indices), generator=rng) < self.settings.caption_dropout
        device = self.model.device
        clean = self.latents_N2CHW[indices, mirrored].to(device)
        z, t, velocity = self.schedule.noised(clean, rng)
        gate = self.gates_N21HW[indices, mirrored].to(device)
        captions = ["" if s else self.captions[i] for i, s in zip(indices, silent, strict=True)]
        caption_BLD = self.model.embed(captions)
        residuals = self.model.controlnet(
            z,
            t,
            caption_BLD,
            controlnet_cond=condition_image(self.masks_N2HW[indices, mirrored.numpy()]).to(device),
            return_dict=False,
        )
        predicted = denoise_gated(
            self.model.unet, z, t, caption_BLD, self.model.empty_1LD, gate, residuals
        )
        error = (predicted - velocity).square().mean(1, keepdim=True)
        # The mean gate of a latent pixel: the loss weighs area, the gate itself takes the maximum.
        g = adaptive_avg_pool2d(gate, error.shape[2:])
        foreground = (g * error).sum() / g.sum().clamp(min=1e-6)
        background = ((1 - g) * error).sum() / (1 - g).sum().clamp(min=1e-6)
        weights = self.settings.foreground_weight, self.settings.background_weight
        loss = (weights[0] * foreground + weights[1] * background) / sum(weights)
        return loss, {"foreground": foreground.item(), "background": background.item()}
