"""Stage 1: the whole U-Net on every training image, labelled or not, without a caption."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import nn

from stdiff.config.training import PretrainConfig
from stdiff.diffusion.decoupling import predict_gated
from stdiff.diffusion.model import DiffusionModel
from stdiff.diffusion.unet import NoiseSchedule
from stdiff.training.progress import Batch


class PretrainStage:
    """Predict v or epsilon of noisy latents, given the empty caption or the image's own.

    With ``trains: controlnet on black masks``, as published, the U-Net is frozen and a ControlNet
    that sees a black mask is trained.
    """

    def __init__(
        self,
        model: DiffusionModel,
        latents_N2CHW: torch.Tensor,
        captions: Sequence[str],
        settings: PretrainConfig,
    ) -> None:
        self.model, self.settings = model, settings
        self.networks: tuple[nn.Module, ...] = (model.unet,)
        if settings.trains == "unet":
            self.modules = nn.ModuleDict({"unet": model.unet})
        else:
            model.unet.requires_grad_(False)
            self.modules = nn.ModuleDict({"controlnet": model.controlnet})
            self.networks = (model.unet, model.controlnet)
        if settings.gradient_checkpointing:
            for network in self.networks:
                network.enable_gradient_checkpointing()
        self.latents_N2CHW, self.count = latents_N2CHW, len(latents_N2CHW)
        # The caption encoder is frozen, so each caption is embedded once.
        texts = sorted({"", *captions}) if settings.captions else [""]
        number = {text: index for index, text in enumerate(texts)}
        self.caption_N = torch.tensor([number.get(text, 0) for text in captions])
        with torch.no_grad():
            self.embedded_TLD = model.embed(texts)
        self.schedule = NoiseSchedule(model.scheduler)

    def sample_batch(self, indices: np.ndarray, rng: torch.Generator) -> Batch:
        """Latents of the images or of their mirror images, noise and time steps."""
        mirrored = torch.randint(2, (len(indices),), generator=rng)
        clean = self.latents_N2CHW[indices, mirrored]
        t_B = self.schedule.time_steps(len(indices), rng)
        noise = torch.randn(clean.shape, generator=rng)
        return {"clean": clean, "t": t_B, "noise": noise, "caption": self.caption_N[indices]}

    def training_step(self, batch: Batch) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Squared error, weighted by time step."""
        here = {name: rows.to(self.model.device) for name, rows in batch.items()}
        clean, t_B = here["clean"], here["t"]
        noised = self.schedule.noised(clean, here["noise"], t_B)
        caption_BLD = self.embedded_TLD.to(self.model.device)[here["caption"]]
        residuals = None
        if self.settings.trains != "unet":
            size_px = self.model.size_px
            black = torch.zeros(len(clean), 3, size_px, size_px, device=clean.device)
            residuals = self.model.controlnet(
                noised.z_BCHW, t_B, caption_BLD, controlnet_cond=black, return_dict=False
            )
        predicted = predict_gated(
            self.model.unet, noised.z_BCHW, t_B, caption_BLD, self.model.empty_1LD, None, residuals
        )
        error_B = (predicted.float() - noised.target_BCHW).square().mean(dim=(1, 2, 3))
        weights_B = self.schedule.weights(t_B, self.settings.min_snr_gamma)
        return (weights_B * error_B).mean(), {"error": error_B.mean()}
