"""Stage 1: the whole denoiser on every training image, labelled or not, without a caption."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from stdiff.diffusion.denoiser import NoiseSchedule
from stdiff.diffusion.folder import DiffusionModel


class PretrainStage:
    """Predict the velocity of noisy latents under the empty caption."""

    def __init__(self, model: DiffusionModel, latents_N2CHW: torch.Tensor) -> None:
        self.model = model
        self.modules = nn.ModuleDict({"unet": model.unet})
        self.latents_N2CHW = latents_N2CHW
        self.schedule = NoiseSchedule(model.scheduler)
        self.count = len(latents_N2CHW)

    def loss(
        self, indices: np.ndarray, rng: torch.Generator
    ) -> tuple[torch.Tensor, dict[str, float]]:
        """Squared error of the velocity."""
        mirrored = torch.randint(2, (len(indices),), generator=rng)
        clean = self.latents_N2CHW[indices, mirrored].to(self.model.device)
        z, t, velocity = self.schedule.noised(clean, rng)
        empty_BLD = self.model.empty_1LD.expand(len(z), -1, -1)
        predicted = self.model.unet(z, t, encoder_hidden_states=empty_BLD).sample
        return (predicted - velocity).square().mean(), {}
