"""Stage 2: ControlNet and caption encoder on labelled images; the U-Net of stage 1 is frozen.

Masks are never dropped: without a mask the gate is closed and the prediction is that of stage 1
whatever the weights, so nothing would be learned.
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
from stdiff.diffusion.decoupling import gate_at, predict_gated, predict_stage_1, soft_gates
from stdiff.diffusion.model import DiffusionModel
from stdiff.diffusion.unet import NoiseSchedule
from stdiff.training.progress import Batch

_NO_CAPTION = -1


class FinetuneStage:
    """Predict v or epsilon of noisy latents, given mask and caption."""

    def __init__(
        self,
        model: DiffusionModel,
        latents_N2CHW: torch.Tensor,
        masks_NHW: np.ndarray,
        captions: list[str],
        settings: FinetuneConfig,
    ) -> None:
        self.model, self.settings = model, settings
        condition = model.condition
        trains_text = condition.text and settings.train_text_encoder
        _train_weights(model.unet, settings.train_unet)
        _train_weights(model.text_encoder, trains_text)
        trains_unet = settings.train_unet or has_adapters(model.unet)
        trained: dict[str, nn.Module | None] = {
            "unet": model.unet if trains_unet else None,
            "controlnet": model.controlnet,
            "text_encoder": model.text_encoder if trains_text else None,
        }
        self.modules = nn.ModuleDict({k: v for k, v in trained.items() if v is not None})
        denoising = [part for part in (model.unet, model.controlnet) if part is not None]
        self.networks = (*denoising, model.text_encoder)
        if settings.gradient_checkpointing:
            for network in denoising:
                network.enable_gradient_checkpointing()
        self.latents_N2CHW, self.count = latents_N2CHW, len(captions)
        size = latents_N2CHW.shape[-2:]
        gates_N1HW = soft_gates(masks_NHW, model.gate)
        # Both at the size of the latents: the gate by maximum, so that no lesion vanishes; the
        # weight of the loss by mean, so that it is proportional to the lesion's area.
        self.gates_N1HW = gate_at(gates_N1HW, size)
        self.inside_N1HW = adaptive_avg_pool2d(gates_N1HW, size)
        conditions_N3HW = condition_image(masks_NHW, condition.image, captions)
        self.conditions_N3HW = (conditions_N3HW * 255).round().byte()
        self.texts = sorted(set(captions)) if condition.text else []
        number = {text: index for index, text in enumerate(self.texts)}
        self.caption_N = torch.tensor([number.get(text, _NO_CAPTION) for text in captions])
        self.schedule = NoiseSchedule(model.scheduler)
        # A frozen caption encoder embeds each caption once.
        self.embedded_TLD = (
            None if trains_text else self._embed(range(_NO_CAPTION, len(self.texts)))
        )

    def sample_batch(self, indices: np.ndarray, rng: torch.Generator) -> Batch:
        """Latents of the images or of their mirror images, conditions, noise and time steps."""
        mirrored = torch.randint(2, (len(indices),), generator=rng)
        dropped = torch.rand(len(indices), generator=rng) < self.settings.caption_dropout
        clean = self.latents_N2CHW[indices, mirrored]
        batch = {
            "clean": clean,
            "t": self.schedule.time_steps(len(indices), rng),
            "noise": torch.randn(clean.shape, generator=rng),
            "caption": self.caption_N[indices].masked_fill(dropped, _NO_CAPTION),
        }
        for name, stored_NCHW in (
            ("gate", self.gates_N1HW),
            ("inside", self.inside_N1HW),
            ("condition", self.conditions_N3HW),
        ):
            rows = stored_NCHW[indices]
            rows[mirrored.bool()] = rows[mirrored.bool()].flip(-1)
            batch[name] = rows
        return batch

    def training_step(self, batch: Batch) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Squared error, weighted by time step and by the two sides of the gate."""
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
        predicted = predict_gated(
            model.unet, noised.z_BCHW, t_B, caption_BLD, model.empty_1LD, gate, residuals
        ).float()
        weights_B = self.schedule.weights(t_B, self.settings.min_snr_gamma)
        error = (predicted - noised.target_BCHW).square().mean(1, keepdim=True)
        foreground_B, background_B = _mean_where(inside, error), _mean_where(1 - inside, error)
        figures = {"foreground": foreground_B.mean(), "background": background_B.mean()}
        error_B = error.mean(dim=(1, 2, 3))
        if (weight := self.settings.foreground_weight) is not None:
            other = self.settings.background_weight
            error_B = (weight * foreground_B + other * background_B) / (weight + other)
        loss = (weights_B * error_B).mean()
        if self.settings.background_hold:
            with torch.no_grad():
                stage_1 = predict_stage_1(model.unet, noised.z_BCHW, t_B, model.empty_1LD)
            change = (predicted - stage_1).square().mean(1, keepdim=True)
            figures["background_change"] = _mean_where(1 - inside, change).mean()
            loss = loss + self.settings.background_hold * figures["background_change"]
        return loss, figures

    def _embed(self, numbers: Iterable[int]) -> torch.Tensor:
        return self.model.embed(["" if k == _NO_CAPTION else self.texts[k] for k in numbers])


def _train_weights(network: nn.Module, trained: bool) -> None:
    """Train all weights of a network or none; of a network with adapters, those only."""
    network.requires_grad_(trained)
    if has_adapters(network):
        train_adapters_only(network)


def _mean_where(weight_B1HW: torch.Tensor, values_B1HW: torch.Tensor) -> torch.Tensor:
    """(B,) weighted mean over each image; 0 where all weights are 0."""
    total = (weight_B1HW * values_B1HW).sum(dim=(1, 2, 3))
    return total / weight_B1HW.sum(dim=(1, 2, 3)).clamp(min=1e-6)
