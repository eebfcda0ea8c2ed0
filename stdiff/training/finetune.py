"""Stage 2: ControlNet and caption encoder on labelled images; stage 1 is frozen.

Foreground (inside the gate) and background are averaged separately in each image and weighted, so
that a small lesion weighs as much as a large one. There is no dropout of masks: without a mask the
gate is closed, the output is stage 1 whatever the weights, and nothing would be learned.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch
from torch import nn
from torch.nn.functional import adaptive_avg_pool2d

from stdiff.config.training import FinetuneConfig
from stdiff.diffusion.adapters import has_adapters, train_adapters_only
from stdiff.diffusion.condition import condition_image
from stdiff.diffusion.decoupling import denoise_as_stage_1, denoise_gated, gate_at, soft_gates
from stdiff.diffusion.model import DiffusionModel
from stdiff.diffusion.unet import NoiseSchedule
from stdiff.training.progress import Batch

_NO_CAPTION = -1


class FinetuneStage:
    """Predict velocity or noise of noisy latents given mask and caption."""

    def __init__(
        self,
        model: DiffusionModel,
        latents_N2CHW: torch.Tensor,
        masks_NHW: np.ndarray,
        captions: list[str],
        settings: FinetuneConfig,
    ) -> None:
        self.model, self.settings = model, settings
        told = model.condition
        trains_text = told.text and settings.text_encoder
        _train_weights(model.unet, settings.denoiser)
        _train_weights(model.text_encoder, trains_text)
        trains_unet = settings.denoiser or has_adapters(model.unet)
        trained: dict[str, nn.Module | None] = {
            "unet": model.unet if trains_unet else None,
            "controlnet": model.controlnet,
            "text_encoder": model.text_encoder if trains_text else None,
        }
        self.modules = nn.ModuleDict({k: v for k, v in trained.items() if v is not None})
        parts = (model.unet, model.controlnet, model.text_encoder)
        self.networks = tuple(part for part in parts if part is not None)
        if settings.gradient_checkpointing:
            for network in (model.unet, model.controlnet):
                if network is not None:
                    network.enable_gradient_checkpointing()
        self.latents_N2CHW = latents_N2CHW
        size = latents_N2CHW.shape[-2:]
        gates_N1HW = soft_gates(masks_NHW, model.gate)
        # At the size of the latents, as all that is computed from them. The gate takes the
        # maximum of a latent pixel, so that no lesion vanishes; the loss weighs its area.
        self.gates_N1HW = gate_at(gates_N1HW, size)
        self.inside_N1HW = adaptive_avg_pool2d(gates_N1HW, size)
        pictures_N3HW = condition_image(masks_NHW, told.image, captions)
        self.conditions_N3HW = (pictures_N3HW * 255).round().byte()
        self.texts = sorted(set(captions)) if told.text else []
        number = {text: index for index, text in enumerate(self.texts)}
        self.caption_N = torch.tensor([number.get(text, _NO_CAPTION) for text in captions])
        self.schedule = NoiseSchedule(model.scheduler)
        self.count = len(captions)
        # What does not change is computed once.
        self.embedded_TLD = (
            None if trains_text else self._embed(range(_NO_CAPTION, len(self.texts)))
        )

    def draw(self, indices: np.ndarray, rng: torch.Generator) -> Batch:
        """Latents of the images or of their mirror images, conditions, noise and time steps."""
        mirrored = torch.randint(2, (len(indices),), generator=rng)
        silent = torch.rand(len(indices), generator=rng) < self.settings.caption_dropout
        clean = self.latents_N2CHW[indices, mirrored]
        batch = {
            "clean": clean,
            "t": self.schedule.time_steps(len(indices), rng),
            "noise": torch.randn(clean.shape, generator=rng),
            "caption": self.caption_N[indices].masked_fill(silent, _NO_CAPTION),
        }
        pictures = {
            "gate": self.gates_N1HW,
            "inside": self.inside_N1HW,
            "condition": self.conditions_N3HW,
        }
        flipped = mirrored.bool()
        for name, pictures_NCHW in pictures.items():
            batch[name] = pictures_NCHW[indices]
            batch[name][flipped] = batch[name][flipped].flip(-1)
        return batch

    def loss(self, batch: Batch) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Weighted squared error, foreground and background apart."""
        here = {name: rows.to(self.model.device) for name, rows in batch.items()}
        t_B, inside, model = here["t"], here["inside"], self.model
        noised = self.schedule.noised(here["clean"], here["noise"], t_B)
        if self.embedded_TLD is None:
            caption_BLD = self._embed(batch["caption"].tolist())
        else:
            caption_BLD = self.embedded_TLD.to(model.device)[here["caption"] - _NO_CAPTION]
        residuals = None
        if model.controlnet is not None:
            residuals = model.controlnet(
                noised.z_BCHW,
                t_B,
                caption_BLD,
                controlnet_cond=here["condition"].float() / 255,
                return_dict=False,
            )
        gate = None if model.gate.everywhere else here["gate"]
        predicted = denoise_gated(
            model.unet, noised.z_BCHW, t_B, caption_BLD, model.empty_1LD, gate, residuals
        ).float()
        weights_B = self.schedule.weights(t_B, self.settings.min_snr_gamma)
        error = (predicted - noised.target_BCHW).square().mean(1, keepdim=True)
        figures = {
            "foreground": _mean_where(inside, error).mean(),
            "background": _mean_where(1 - inside, error).mean(),
        }
        loss = (weights_B * self._weighted(error, inside)).mean()
        if self.settings.background_hold:
            with torch.no_grad():
                stage_1 = denoise_as_stage_1(model.unet, noised.z_BCHW, t_B, model.empty_1LD)
            change = (predicted - stage_1).square().mean(1, keepdim=True)
            figures["background_change"] = _mean_where(1 - inside, change).mean()
            loss = loss + self.settings.background_hold * figures["background_change"]
        return loss, figures

    def _embed(self, numbers: Iterable[int]) -> torch.Tensor:
        return self.model.embed(["" if k == _NO_CAPTION else self.texts[k] for k in numbers])

    def _weighted(self, error_B1HW: torch.Tensor, inside_B1HW: torch.Tensor) -> torch.Tensor:
        """(B,) error of each image."""
        foreground, background = self.settings.foreground_weight, self.settings.background_weight
        if foreground is None:
            return error_B1HW.mean(dim=(1, 2, 3))
        parted = foreground * _mean_where(inside_B1HW, error_B1HW)
        parted = parted + background * _mean_where(1 - inside_B1HW, error_B1HW)
        return parted / (foreground + background)


def _train_weights(network: nn.Module, trained: bool) -> None:
    """All weights of a network or none; where it has adapters, those alone."""
    network.requires_grad_(trained)
    if has_adapters(network):
        train_adapters_only(network)


def _mean_where(weight_B1HW: torch.Tensor, values_B1HW: torch.Tensor) -> torch.Tensor:
    """(B,) weighted mean over each image; 0 where nothing has a weight."""
    total = (weight_B1HW * values_B1HW).sum(dim=(1, 2, 3))
    return total / weight_B1HW.sum(dim=(1, 2, 3)).clamp(min=1e-6)
