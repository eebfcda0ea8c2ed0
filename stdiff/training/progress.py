"""One optimisation step after the other: what a stage is to the loop, and how far it has come."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol

import numpy as np
import torch
from torch import nn

from stdiff.config.training import StageConfig
from stdiff.runtime.device import compute_device
from stdiff.runtime.tensor_files import Tensors
from stdiff.training import distributed as ranks

# What a step computes with: tensors that all have the batch's images as their first axis.
Batch = dict[str, torch.Tensor]


class Stage(Protocol):
    """What the loop trains."""

    modules: nn.ModuleDict  # all trained weights and buffers; frozen parts stand elsewhere
    networks: Sequence[nn.Module]  # all that compute, trained or frozen
    count: int  # number of training samples

    def draw(self, indices: np.ndarray, rng: torch.Generator) -> Batch:
        """All of a batch, what is random in it included; sample ``indices`` in [0, count)."""

    def loss(self, batch: Batch) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Mean loss over a batch, or a part of one, and means of figures to log with it."""


def learning_rate(images: int, settings: StageConfig) -> float:
    """Linear warm-up, then half a cosine down to zero."""
    if images < settings.warmup_images:
        return (
            settings.learning_rate
            * (images + settings.batch)
            / (settings.warmup_images + settings.batch)
        )
    done = (images - settings.warmup_images) / max(1, settings.images - settings.warmup_images)
    return settings.learning_rate * 0.5 * (1 + math.cos(math.pi * min(1.0, done)))


class Progress:
    """Weights, their average, optimiser moments and the count of images seen."""

    def __init__(self, modules: nn.ModuleDict, settings: StageConfig) -> None:
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
        self.average = [w.detach().clone() for w in self.weights] if settings.ema_decay else []

    def backward(self, stage: Stage, batch: Batch) -> dict[str, float]:
        """Gradients of the mean loss over the batch; returns its loss and figures."""
        self.optimizer.zero_grad(set_to_none=True)
        size = self.settings.batch
        mine = {name: rows[ranks.my_part(size)] for name, rows in batch.items()}
        count = len(next(iter(mine.values())))
        sums: dict[str, torch.Tensor] = {}
        for start in range(0, count, self.settings.microbatch or count):
            part = slice(start, start + (self.settings.microbatch or count))
            with _autocast(self.settings.precision):
                loss, figures = stage.loss({name: rows[part] for name, rows in mine.items()})
            share = len(range(count)[part]) / size
            (loss * share).backward()
            for name, value in {"loss": loss, **figures}.items():
                sums[name] = sums.get(name, 0) + share * value.detach().float()
        ranks.sum_up(list(sums.values()))
        return {name: float(value) for name, value in sums.items()}

    def step(self) -> float:
        """One optimisation step; returns the gradient norm before clipping."""
        for weight in self.weights:
            # All processes sum the same tensors, whether or not their images touched them.
            if weight.grad is None and ranks.count() > 1:
                weight.grad = torch.zeros_like(weight)
        ranks.sum_up([w.grad for w in self.weights if w.grad is not None])
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(self.images, self.settings)
        norm = nn.utils.clip_grad_norm_(self.weights, self.settings.max_gradient_norm)
        self.optimizer.step()
        self.images += self.settings.batch
        self.steps += 1
        if self.average:
            # The average follows quickly at first, so that short trainings are not held back.
            decay = min(self.settings.ema_decay, (1 + self.steps) / (10 + self.steps))
            with torch.no_grad():
                torch._foreach_lerp_(self.average, self.weights, 1 - decay)
        return float(norm)

    def crossed(self, every_images: int, before: int) -> bool:
        """Whether a multiple was passed since ``before`` images, or the end is reached."""
        passed = self.images // every_images > before // every_images
        return passed or self.images >= self.settings.images

    def use_average(self) -> None:
        """Put the averaged weights in place of the last ones."""
        with torch.no_grad():
            for weight, average in zip(self.weights, self.average, strict=False):
                weight.copy_(average)

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """The averaged weights in place of the last ones, for a while."""
        last = [weight.detach().clone() for weight in self.weights]
        self.use_average()
        try:
            yield
        finally:
            with torch.no_grad():
                for weight, value in zip(self.weights, last, strict=True):
                    weight.copy_(value)

    def trained(self) -> Tensors:
        """The weights that are trained, by name."""
        return {n: w for n, w in self.modules.named_parameters() if w.requires_grad}

    def changing(self) -> Tensors:
        """Weights that are trained, and buffers; frozen weights need not be kept."""
        return self.trained() | dict(self.modules.named_buffers())

    def tensors(self) -> Tensors:
        """Everything a later process needs to go on, by name."""
        tensors = {f"model.{name}": value.detach() for name, value in self.changing().items()}
        tensors |= {f"average.{i}": average for i, average in enumerate(self.average)}
        for i, weight in enumerate(self.weights):
            for key, value in self.optimizer.state.get(weight, {}).items():
                tensors[f"optimizer.{i}.{key}"] = value
        return tensors | {"steps": torch.tensor(self.steps)}

    def restore(self, images: int, tensors: Tensors) -> None:
        """Undo :meth:`tensors`."""
        model = {k.removeprefix("model."): v for k, v in tensors.items() if k.startswith("model.")}
        with torch.no_grad():
            for name, value in self.changing().items():
                value.copy_(model[name])
        for i, average in enumerate(self.average):
            average.copy_(tensors[f"average.{i}"])
        for i, weight in enumerate(self.weights):
            prefix = f"optimizer.{i}."
            self.optimizer.state[weight] = {
                key.removeprefix(prefix): _laid_out_as(weight, value.to(weight.device))
                for key, value in tensors.items()
                if key.startswith(prefix)
            }
        self.images, self.steps = images, int(tensors["steps"])


def _laid_out_as(weight: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    """A moment in its weight's memory format; in another one the optimizer rounds differently."""
    return torch.empty_like(weight).copy_(value) if value.shape == weight.shape else value


def _autocast(precision: str) -> torch.autocast:
    """Nothing is cast in float32."""
    return torch.autocast(compute_device().type, torch.bfloat16, enabled=precision == "bfloat16")
