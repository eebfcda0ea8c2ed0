"""Stage 3: a model of few steps and no guidance that lands where the fine-tuned one does.

The teacher, guided, samples from noise. Its states at the student's few time steps are where the
student should step from and to: the prediction that takes a first-order step from one exactly to
the next is its target (knowledge distillation of the sampling equation, Luhman and Luhman 2021,
arXiv 2101.02388; step by step as in Salimans and Ho 2022, arXiv 2202.00512). The student starts as
the teacher. It needs no guidance, so a step of it costs less than half of one of the teacher's.
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
from stdiff.diffusion.guidance import Denoisers, build_solver, denoise, signal_and_noise
from stdiff.diffusion.model import DiffusionModel
from stdiff.training.progress import Batch


class DistillStage:
    """Predict what takes a large step along the teacher's path."""

    def __init__(
        self,
        model: DiffusionModel,
        masks_NHW: np.ndarray,
        captions: list[str],
        settings: DistillConfig,
        sampler: SamplerConfig,
    ) -> None:
        """``model`` is the teacher, and becomes the student; ``sampler`` is the teacher's."""
        self.sampler = sampler
        networks = {"unet": model.unet, "controlnet": model.controlnet}
        teacher = replace(model, **copy.deepcopy(networks))
        for network in (teacher.unet, teacher.controlnet, model.text_encoder):
            if network is not None:
                network.requires_grad_(False)
        self.model = model
        self.masks_NHW, self.captions, self.count = masks_NHW, captions, len(captions)
        self.modules = nn.ModuleDict({k: v for k, v in networks.items() if v is not None})
        self.modules.requires_grad_(True)
        parts = (*networks.values(), teacher.unet, teacher.controlnet)
        self.networks = tuple(part for part in parts if part is not None)
        self._teacher, self._student = Denoisers(teacher, False), Denoisers(model, False)
        self.scheduler = few_step_scheduler(model.scheduler, settings.steps)

    def draw(self, indices: np.ndarray, rng: torch.Generator) -> Batch:
        """Masks, or their mirror images, by number; and noise to start from."""
        side_px, channels = self.model.latent_px, self.model.unet.config.in_channels
        return {
            "index": torch.from_numpy(indices),
            "mirrored": torch.randint(2, (len(indices),), generator=rng).bool(),
            "noise": torch.randn((len(indices), channels, side_px, side_px), generator=rng),
        }

    def loss(self, batch: Batch) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Squared error of the student's prediction, mean over its steps."""
        numbers, mirrored = batch["index"].numpy(), batch["mirrored"].numpy()
        masks_NHW = self.masks_NHW[numbers].copy()
        masks_NHW[mirrored] = masks_NHW[mirrored][:, :, ::-1]
        captions = [self.captions[number] for number in numbers]
        path = self._path(masks_NHW, captions, batch["noise"].to(self.model.device))
        told = self._student.conditioned(masks_NHW, captions)
        errors = []
        for number, t in enumerate(self.scheduler.timesteps):
            here, there = path[number], path[number + 1]
            target = prediction_between(self.scheduler, number, here, there)
            errors.append((told.told(here, t).float() - target).square().mean())
        figures = {f"error_step_{number + 1}": error for number, error in enumerate(errors)}
        return torch.stack(errors).mean(), figures

    @torch.no_grad()
    def _path(
        self, masks_NHW: np.ndarray, captions: list[str], z_BCHW: torch.Tensor
    ) -> list[torch.Tensor]:
        """The teacher's states at the student's time steps: noise first, the image last."""
        solver = build_solver(self.model.scheduler, self.sampler)
        conditions = self._teacher.conditioned(masks_NHW, captions)
        states = [z_BCHW, *denoise(conditions, solver, z_BCHW, self.sampler)]
        return states[:: self.sampler.steps // len(self.scheduler.timesteps)]


def few_step_scheduler(
    scheduler: DPMSolverMultistepScheduler, steps: int
) -> DPMSolverMultistepScheduler:
    """First-order steps (those of DDIM), as the student was trained for."""
    few = DPMSolverMultistepScheduler.from_config(scheduler.config, solver_order=1)
    few.set_timesteps(steps)
    return few


def prediction_between(
    scheduler: DPMSolverMultistepScheduler, step: int, here: torch.Tensor, there: torch.Tensor
) -> torch.Tensor:
    """The prediction that takes a first-order step ``step`` from one state exactly to another.

    With z = a x + s e (image x, noise e) and primes for where the step goes, z' = a' x + s' e.
    Given the velocity v, x = a z - s v and e = s z + a v; given the noise, x = (z - s e) / a.
    """
    (a, s), (a_to, s_to) = (signal_and_noise(scheduler, i) for i in (step, step + 1))
    if scheduler.config.prediction_type == "v_prediction":
        return (there - (a_to * a + s_to * s) * here) / (s_to * a - a_to * s)
    return (there - a_to / a * here) / (s_to - a_to * s / a)
