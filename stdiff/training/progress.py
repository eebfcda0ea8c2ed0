"""The stage protocol, and the state of a training: weights, EMA, optimizer and images seen."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol

import numpy as np
import torch
from torch import nn

from stdiff.config.training import LoopConfig, StageConfig
from stdiff.runtime.device import compute_device
from stdiff.runtime.tensor_files import Tensors
from stdiff.training import distributed

# Tensors whose first axis is the batch.
Batch = dict[str, torch.Tensor]


class Stage(Protocol):
    """What the loop trains."""

    modules: nn.ModuleDict  # trained weights and buffers, no frozen parts
    networks: Sequence[nn.Module]  # all networks used, trained or frozen
    count: int  # number of training samples

    def sample_batch(self, indices: np.ndarray, rng: torch.Generator) -> Batch:
        """The batch of these samples, in [0, count), with all random numbers its step needs."""

    def training_step(self, batch: Batch) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Mean loss over a batch, or a slice of one, and mean figures to log."""


def learning_rate(images: int, settings: LoopConfig) -> float:
    """Linear warm-up, then half a cosine to zero."""
    warmup = settings.warmup_images
    if images < warmup:
        return settings.learning_rate * (images + settings.batch) / (warmup + settings.batch)
    done = (images - warmup) / max(1, settings.images - warmup)
    return settings.learning_rate * 0.5 * (1 + math.cos(math.pi * min(1.0, done)))


class Progress:
    """Weights, their EMA, optimizer moments and the number of images seen.

    The EMA is not diffusers' EMAModel, which rounds differently and loops over the weights.
    """

    def __init__(self, modules: nn.ModuleDict, settings: LoopConfig) -> None:
        self.modules, self.settings = modules, settings
        self.images = 0
        self.steps = 0
        self.weights = [p for p in modules.parameters() if p.requires_grad]
        self.optimizer = torch.optim.AdamW(
            self.weights,
            lr=settings.learning_rate,
            weight_decay=settings.weight_decay,
            fused=True,
        )
        self.ema_decay = settings.ema_decay if isinstance(settings, StageConfig) else 0
        self.ema = [w.detach().clone() for w in self.weights] if self.ema_decay else []

    def backward(self, stage: Stage, batch: Batch) -> dict[str, float]:
        """Compute gradients of the mean loss over the batch; returns loss and figures."""
        self.optimizer.zero_grad(set_to_none=True)
        size = self.settings.batch
        local = {name: rows[distributed.local_slice(size)] for name, rows in batch.items()}
        count = len(next(iter(local.values())))
        microbatch = self.settings.microbatch or count
        sums: dict[str, torch.Tensor] = {}
        for start in range(0, count, microbatch):
            part = slice(start, start + microbatch)
            with _autocast(self.settings.precision):
                loss, figures = stage.training_step({n: rows[part] for n, rows in local.items()})
            share = len(range(count)[part]) / size
            (loss * share).backward()
            for name, value in {"loss": loss, **figures}.items():
                sums[name] = sums.get(name, 0) + share * value.detach().float()
        distributed.all_reduce(list(sums.values()))
        return {name: float(value) for name, value in sums.items()}

    def step(self) -> float:
        """Take one optimizer step; returns the gradient norm before clipping."""
        for weight in self.weights:
            # All processes must sum the same tensors, whether or not their images used them.
            if weight.grad is None and distributed.num_processes() > 1:
                weight.grad = torch.zeros_like(weight)
        distributed.all_reduce([w.grad for w in self.weights if w.grad is not None])
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(self.images, self.settings)
        norm = nn.utils.clip_grad_norm_(self.weights, self.settings.max_gradient_norm)
        self.optimizer.step()
        self.images += self.settings.batch
        self.steps += 1
        if self.ema:
            # A lower decay in the first steps, so that short trainings forget their start.
            decay = min(self.ema_decay, (1 + self.steps) / (10 + self.steps))
            with torch.no_grad():
                torch._foreach_lerp_(self.ema, self.weights, 1 - decay)
        return float(norm)

    @property
    def finished(self) -> bool:
        """Whether all images of the training were seen."""
        return self.images >= self.settings.images

    def crossed(self, every_images: int, before: int) -> bool:
        """Whether a multiple was passed since ``before`` images, or the end is reached."""
        passed = self.images // every_images > before // every_images
        return passed or self.finished

    def use_ema(self) -> None:
        """Replace the weights by their EMA, if there is one."""
        _copy(self.ema, self.weights[: len(self.ema)])

    @contextmanager
    def ema_weights(self) -> Iterator[None]:
        """Use the EMA weights within the context."""
        last = [weight.detach().clone() for weight in self.weights]
        self.use_ema()
        try:
            yield
        finally:
            _copy(last, self.weights)

    def model_state(self) -> Tensors:
        """Trained weights and buffers, by name; frozen weights are not saved."""
        trained = {n: w for n, w in self.modules.named_parameters() if w.requires_grad}
        return trained | dict(self.modules.named_buffers())

    def state(self) -> Tensors:
        """Everything needed to resume, by name; a finished training needs no optimizer."""
        tensors = {f"model.{name}": value.detach() for name, value in self.model_state().items()}
        tensors |= {f"ema.{i}": value for i, value in enumerate(self.ema)}
        for i, weight in enumerate([] if self.finished else self.weights):
            for key, value in self.optimizer.state.get(weight, {}).items():
                tensors[f"optimizer.{i}.{key}"] = value
        return tensors | {"steps": torch.tensor(self.steps)}

    def restore(self, images: int, tensors: Tensors) -> None:
        """Resume from :meth:`state` at this number of images."""
        named = self.model_state()
        _copy([tensors[f"model.{name}"] for name in named], list(named.values()))
        _copy([tensors[f"ema.{i}"] for i in range(len(self.ema))], self.ema)
        for i, weight in enumerate(self.weights):
            prefix = f"optimizer.{i}."
            self.optimizer.state[weight] = {
                key.removeprefix(prefix): _laid_out_as(weight, value.to(weight.device))
                for key, value in tensors.items()
                if key.startswith(prefix)
            }
        self.images, self.steps = images, int(tensors["steps"])


@torch.no_grad()
def _copy(source: Sequence[torch.Tensor], target: Sequence[torch.Tensor]) -> None:
    for value, tensor in zip(source, target, strict=True):
        tensor.copy_(value)


def _laid_out_as(weight: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    """A moment in its weight's memory format; in another one the optimizer rounds differently."""
    return torch.empty_like(weight).copy_(value) if value.shape == weight.shape else value


def _autocast(precision: str) -> torch.autocast:
    return torch.autocast(compute_device().type, torch.bfloat16, enabled=precision == "bfloat16")
