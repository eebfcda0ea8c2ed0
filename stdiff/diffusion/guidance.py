"""Guided predictions for a batch of masks and captions, and the sampling steps that use them.

What does not change from step to step is computed once: the gate, the caption embeddings, and the
embedding of the condition image, a large share of a small ControlNet's cost.
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
from stdiff.diffusion.decoupling import gate_at, predict_gated, predict_stage_1, soft_gates
from stdiff.diffusion.insertion import Background
from stdiff.diffusion.model import DiffusionModel

# A few kB each with a small encoder, 250 kB with Stable Diffusion's.
_CAPTIONS_CACHED = 1000


class SamplingNetworks:
    """A model's networks, prepared once for many batches and steps."""

    def __init__(self, model: DiffusionModel, compiled: bool = False) -> None:
        self.model = model
        self.unet, self.controlnet = model.unet, model.controlnet
        self.embedder: Callable[[torch.Tensor], torch.Tensor] | None = None
        if self.controlnet is not None:
            self.embedder = self.controlnet.controlnet_cond_embedding
            self.controlnet = _without_embedder(self.controlnet)
        if compiled:
            self.unet = torch.compile(self.unet, options={"freezing": True})
            if self.controlnet is not None:
                self.controlnet = torch.compile(self.controlnet, options={"freezing": True})
        # One caption at a time, so that rounding does not depend on the others in the batch.
        self.caption_LD = functools.lru_cache(_CAPTIONS_CACHED)(lambda c: model.embed([c])[0])

    def given(self, masks_NHW: np.ndarray, captions: Sequence[str]) -> Predictions:
        """Predictions conditioned on these (N, H, W) uint8 masks and N captions."""
        model = self.model
        condition, gate_B1HW, embedded = model.condition, None, None
        if not model.gate.everywhere:
            latent = (model.latent_px, model.latent_px)
            gate_B1HW = gate_at(soft_gates(masks_NHW, model.gate), latent).to(model.device)
        if self.embedder is not None:
            image_N3HW = condition_image(masks_NHW, condition.image, captions)
            embedded = self.embedder(image_N3HW.to(model.device))
        empty_BLD = model.empty_1LD.expand(len(captions), -1, -1)
        caption_BLD = empty_BLD
        if condition.text:
            caption_BLD = torch.stack([self.caption_LD(caption) for caption in captions])
        return Predictions(self, gate_B1HW, embedded, caption_BLD, empty_BLD)


class Predictions:
    """Predictions for one batch, given no condition, the mask, or mask and caption."""

    def __init__(
        self,
        networks: SamplingNetworks,
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
        """Classifier-free guidance with separate scales for mask and caption.

        v = v₀ + s_mask (v_mask - v₀) + s_text (v_mask,text - v_mask), where v₀ is stage 1's
        prediction. With equal scales v_mask cancels, with a mask scale of 1 v₀: what cancels is
        not computed.
        """
        full = self.conditional(z_BCHW, t)
        if mask_scale == text_scale == 1:
            return full
        if mask_scale == 1:
            mask = self._predict(z_BCHW, t, self._empty_BLD)
            return mask + text_scale * (full - mask)
        base = predict_stage_1(self._networks.unet, z_BCHW, t, self._empty_BLD)
        if mask_scale == text_scale:
            return base + mask_scale * (full - base)
        mask = self._predict(z_BCHW, t, self._empty_BLD)
        return base + mask_scale * (mask - base) + text_scale * (full - mask)

    def conditional(self, z_BCHW: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        """Prediction given mask and caption, without guidance."""
        return self._predict(z_BCHW, t, self._caption_BLD)

    def _predict(
        self, z_BCHW: torch.Tensor, t: torch.Tensor, caption_BLD: torch.Tensor
    ) -> torch.Tensor:
        residuals = None
        if self._networks.controlnet is not None:
            residuals = self._networks.controlnet(
                z_BCHW, t, caption_BLD, controlnet_cond=self._embedded_BCHW, return_dict=False
            )
        return predict_gated(
            self._networks.unet, z_BCHW, t, caption_BLD, self._empty_BLD, self._gate_B1HW, residuals
        )


def build_solver(scheduler: SchedulerMixin, sampler: SamplerConfig) -> SchedulerMixin:
    """The sampler's solver over a model's noise schedule."""
    solvers = {"dpm-solver++": DPMSolverMultistepScheduler, "unipc": UniPCMultistepScheduler}
    solver = solvers[sampler.solver].from_config(scheduler.config)
    solver.set_timesteps(sampler.steps)
    return solver


def sampling_steps(
    predictions: Predictions,
    solver: SchedulerMixin,
    z_BCHW: torch.Tensor,
    sampler: SamplerConfig,
    background: Background | None = None,
) -> Iterator[torch.Tensor]:
    """Latents after each step, starting from the noise ``z_BCHW``."""
    first_guided = math.ceil(sampler.guidance_from * len(solver.timesteps))
    for number, t in enumerate(solver.timesteps):
        mask_scale, text_scale = sampler.mask_guidance, sampler.text_guidance
        if number < first_guided:
            mask_scale, text_scale = 1.0, sampler.early_text_guidance
        predicted = predictions.guided(z_BCHW, t, mask_scale=mask_scale, text_scale=text_scale)
        z_BCHW = solver.step(predicted.float(), t, z_BCHW).prev_sample
        if background is not None:
            z_BCHW = background.blend_latents(z_BCHW, *signal_and_noise(solver, number + 1))
        yield z_BCHW


def signal_and_noise(solver: SchedulerMixin, step: int) -> tuple[float, float]:
    """Scales of image and noise in the latents before a step; (1, 0) after the last one."""
    sigma = float(solver.sigmas[step])
    signal = (1 + sigma**2) ** -0.5
    return signal, sigma * signal


def _without_embedder(controlnet: nn.Module) -> nn.Module:
    """The same ControlNet, with shared weights, that takes an embedded condition."""
    shared = copy.copy(controlnet)
    shared._modules = dict(controlnet._modules)
    shared.controlnet_cond_embedding = nn.Identity()
    return shared
