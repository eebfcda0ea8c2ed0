"""Stage 3: a few-step student that imitates the guided teacher without guidance.

The guided teacher samples from noise. At each of the student's time steps, the target is the
prediction with which one first-order step leads exactly to the teacher's next state (knowledge
distillation of the sampling equation, Luhman and Luhman 2021, arXiv 2101.02388; step by step as in
Salimans and Ho 2022, arXiv 2202.00512). The student starts from the teacher's weights. Without
guidance, a step costs less than half of the teacher's.
"""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
import torch
from diffusers import DPMSolverMultistepScheduler
from torch import nn

from stdiff.config.generator import SamplerConfig
from stdiff.config.training import DistillConfig
from stdiff.diffusion.guidance import (
    SamplingNetworks,
    build_solver,
    sampling_steps,
    signal_and_noise,
)
from stdiff.diffusion.model import DiffusionModel
from stdiff.training.progress import Batch


class DistillStage:
    """Predict the target of every large step along the teacher's path."""

    def __init__(
        self,
        model: DiffusionModel,
        masks_NHW: np.ndarray,
        captions: list[str],
        settings: DistillConfig,
        sampler: SamplerConfig,
    ) -> None:
        """``model`` is the teacher and becomes the student; ``sampler`` is the teacher's."""
        self.model, self.sampler = model, sampler
        networks = {"unet": model.unet, "controlnet": model.controlnet}
        teacher = replace(model, **copy.deepcopy(networks))
        for network in (teacher.unet, teacher.controlnet, model.text_encoder):
            if network is not None:
                network.requires_grad_(False)
        self.masks_NHW, self.captions, self.count = masks_NHW, captions, len(captions)
        self.modules = nn.ModuleDict({k: v for k, v in networks.items() if v is not None})
        self.modules.requires_grad_(True)
        parts = (*networks.values(), teacher.unet, teacher.controlnet)
        self.networks = tuple(part for part in parts if part is not None)
        self._teacher, self._student = SamplingNetworks(teacher), SamplingNetworks(model)
        self.scheduler = few_step_scheduler(model.scheduler, settings.steps)

    def sample_batch(self, indices: np.ndarray, rng: torch.Generator) -> Batch:
        """Indices of masks and captions, whether they are mirrored, and the initial noise."""
        side_px, channels = self.model.latent_px, self.model.unet.config.in_channels
        return {
            "index": torch.from_numpy(indices),
            "mirrored": torch.randint(2, (len(indices),), generator=rng).bool(),
            "noise": torch.randn((len(indices), channels, side_px, side_px), generator=rng),
        }

    def training_step(self, batch: Batch) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Squared error of the student's prediction, mean over its steps."""
        numbers, mirrored = batch["index"].numpy(), batch["mirrored"].numpy()
        masks_NHW = self.masks_NHW[numbers].copy()
        masks_NHW[mirrored] = masks_NHW[mirrored][:, :, ::-1]
        captions = [self.captions[number] for number in numbers]
        path = self._path(masks_NHW, captions, batch["noise"].to(self.model.device))
        student = self._student.given(masks_NHW, captions)
        errors = []
        for number, t in enumerate(self.scheduler.timesteps):
            here, there = path[number], path[number + 1]
            target = prediction_between(self.scheduler, number, here, there)
            errors.append((student.conditional(here, t).float() - target).square().mean())
        figures = {f"error_step_{number + 1}": error for number, error in enumerate(errors)}
        return torch.stack(errors).mean(), figures

    @torch.no_grad()
    def _path(
        self, masks_NHW: np.ndarray, captions: list[str], z_BCHW: torch.Tensor
    ) -> list[torch.Tensor]:
        """The teacher's states at the student's time steps, from noise to image."""
        solver = build_solver(self.model.scheduler, self.sampler)
        predictions = self._teacher.given(masks_NHW, captions)
        states = [z_BCHW, *sampling_steps(predictions, solver, z_BCHW, self.sampler)]
        return states[:: self.sampler.steps // len(self.scheduler.timesteps)]


def few_step_scheduler(
    scheduler: DPMSolverMultistepScheduler, steps: int
) -> DPMSolverMultistepScheduler:
    """First-order steps (those of DDIM), for which the student is trained."""
    few = DPMSolverMultistepScheduler.from_config(scheduler.config, solver_order=1)
    few.set_timesteps(steps)
    return few


def prediction_between(
    scheduler: DPMSolverMultistepScheduler, step: int, here: torch.Tensor, there: torch.Tensor
) -> torch.Tensor:
    """The prediction with which first-order step ``step`` leads exactly from ``here`` to ``there``.

    With z = a x + s e (image x, noise e) and z' = a' x + s' e after the step, solved for the
    prediction: from v, x = a z - s v and e = s z + a v; from epsilon, x = (z - s e) / a.
    """
    (a, s), (a_to, s_to) = (signal_and_noise(scheduler, i) for i in (step, step + 1))
    if scheduler.config.prediction_type == "v_prediction":
        return (there - (a_to * a + s_to * s) * here) / (s_to * a - a_to * s)
    return (there - a_to / a * here) / (s_to - a_to * s / a)
