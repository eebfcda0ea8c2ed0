"""What the denoiser predicts of one batch, guided by masks and captions.

All that stays the same from step to step is computed once: the gate, the caption embeddings, and
the embedding of the condition image, a large part of a small ControlNet's work.
"""

from __future__ import annotations

import copy
import functools
import math
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from diffusers import DPMSolverMultistepScheduler, SchedulerMixin, UniPCMultistepScheduler
from torch import nn

from stdiff.config.generator import SamplerConfig
from stdiff.diffusion.condition import condition_image
from stdiff.diffusion.decoupling import denoise_as_stage_1, denoise_gated, gate_at, soft_gates
from stdiff.diffusion.insertion import Background
from stdiff.diffusion.model import DiffusionModel

# Of some kilobytes each with a small encoder, and a quarter of a megabyte with Stable Diffusion's.
_CAPTIONS_KEPT = 1000


class Denoisers:
    """A model's networks, made ready to be called at many steps of many batches."""

    def __init__(self, model: DiffusionModel, compiled: bool) -> None:
        self.model = model
        self.unet, self.controlnet = model.unet, model.controlnet
        self.embedder: Callable[[torch.Tensor], torch.Tensor] | None = None
        if self.controlnet is not None:
            # The ControlNet is given what is already embedded.
            self.embedder = self.controlnet.controlnet_cond_embedding
            self.controlnet = _without_embedder(self.controlnet)
        if compiled:
            self.unet = torch.compile(self.unet, options={"freezing": True})
            if self.controlnet is not None:
                self.controlnet = torch.compile(self.controlnet, options={"freezing": True})
        # One at a time, so that an embedding does not depend on which others are asked for.
        self.caption_LD = functools.lru_cache(_CAPTIONS_KEPT)(lambda c: model.embed([c])[0])

    def conditioned(self, masks_NHW: np.ndarray, captions: Sequence[str]) -> Conditions:
        """All that a batch of masks and captions tells the networks."""
        model = self.model
        told, gate_B1HW = model.condition, None
        if not model.gate.everywhere:
            latent = (model.latent_px, model.latent_px)
            gate_B1HW = gate_at(soft_gates(masks_NHW, model.gate), latent).to(model.device)
        embedded = None
        if self.embedder is not None:
            picture = condition_image(masks_NHW, told.image, captions)
            embedded = self.embedder(picture.to(model.device))
        empty_BLD = model.empty_1LD.expand(len(captions), -1, -1)
        caption_BLD = empty_BLD
        if told.text:
            caption_BLD = torch.stack([self.caption_LD(caption) for caption in captions])
        return Conditions(self, gate_B1HW, embedded, caption_BLD, empty_BLD)


class Conditions:
    """Predictions for one batch: of stage 1, of the mask, and of mask and caption."""

    def __init__(
        self,
        networks: Denoisers,
        gate_B1HW: torch.Tensor | None,
        embedded_BCHW: torch.Tensor | None,
        caption_BLD: torch.Tensor,
        empty_BLD: torch.Tensor,
    ) -> None:
        self._networks, self._gate_B1HW, self._embedded_BCHW = networks, gate_B1HW, embedded_BCHW
        self._caption_BLD, self._empty_BLD = caption_BLD, empty_BLD

    def guided(
        self, z_BCHW: torch.Tensor, t: torch.Tensor, *, mask_scale: float, text_scale: float
    ) -> torch.Tensor:
        """Prediction guided away from stage 1, with a scale for the mask and one for the caption.

        v = v₀ + s_mask (v_mask - v₀) + s_text (v_mask,text - v_mask), v₀ being stage 1 itself: no
        ControlNet, no caption. With equal scales the middle branch cancels, with a mask scale of 1
        the first: what cancels is not computed.
        """
        full = self.told(z_BCHW, t)
        if mask_scale == text_scale == 1:
            return full
        if mask_scale == 1:
            mask = self._conditioned(z_BCHW, t, self._empty_BLD)
            return mask + text_scale * (full - mask)
        base = denoise_as_stage_1(self._networks.unet, z_BCHW, t, self._empty_BLD)
        if mask_scale == text_scale:
            return base + mask_scale * (full - base)
        mask = self._conditioned(z_BCHW, t, self._empty_BLD)
        return base + mask_scale * (mask - base) + text_scale * (full - mask)

    def told(self, z_BCHW: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        """Prediction from mask and caption, without guidance."""
        return self._conditioned(z_BCHW, t, self._caption_BLD)

    def _conditioned(
        self, z_BCHW: torch.Tensor, t: torch.Tensor, caption_BLD: torch.Tensor
    ) -> torch.Tensor:
        residuals = None
        if self._networks.controlnet is not None:
            residuals = self._networks.controlnet(
                z_BCHW, t, caption_BLD, controlnet_cond=self._embedded_BCHW, return_dict=False
            )
        return denoise_gated(
            self._networks.unet, z_BCHW, t, caption_BLD, self._empty_BLD, self._gate_B1HW, residuals
        )


def build_solver(scheduler: SchedulerMixin, sampler: SamplerConfig) -> SchedulerMixin:
    """What steps along a model's noise schedule as the sampler says."""
    kind = {"dpm-solver++": DPMSolverMultistepScheduler, "unipc": UniPCMultistepScheduler}
    solver = kind[sampler.solver].from_config(scheduler.config)
    solver.set_timesteps(sampler.steps)
    return solver


def denoise(
    conditions: Conditions,
    solver: SchedulerMixin,
    z_BCHW: torch.Tensor,
    sampler: SamplerConfig,
    background: Background | None = None,
) -> Iterator[torch.Tensor]:
    """Latents after every step from ``z_BCHW`` on, which is noise."""
    first_guided = math.ceil(sampler.guidance_from * len(solver.timesteps))
    for number, t in enumerate(solver.timesteps):
        mask_scale, text_scale = sampler.mask_guidance, sampler.text_guidance
        if number < first_guided:
            mask_scale, text_scale = 1.0, sampler.early_text_guidance
        predicted = conditions.guided(z_BCHW, t, mask_scale=mask_scale, text_scale=text_scale)
        z_BCHW = solver.step(predicted.float(), t, z_BCHW).prev_sample
        if background is not None:
            z_BCHW = background.put_back(z_BCHW, *signal_and_noise(solver, number + 1))
        yield z_BCHW


def signal_and_noise(solver: SchedulerMixin, step: int) -> tuple[float, float]:
    """How much of image and noise is in the latents before a step; 1 and 0 after the last one."""
    sigma = float(solver.sigmas[step])
    signal = (1 + sigma**2) ** -0.5
    return signal, sigma * signal


def _without_embedder(controlnet: nn.Module) -> nn.Module:
    """The same ControlNet, weights shared, that takes an embedded condition."""
    shared = copy.copy(controlnet)
    shared._modules = dict(controlnet._modules)
    shared.controlnet_cond_embedding = nn.Identity()
    return shared
