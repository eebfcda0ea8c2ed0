"""The training loop, shared by all stages of the generator and by the segmenters.

Progress is counted in images. Sample order and noise are drawn from (seed, purpose, images seen),
so running the same command again goes on from the newest whole checkpoint and, on CPU with the
same number of threads, ends with the same weights bit for bit.
"""

from __future__ import annotations

import math
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import nn

from stdiff.config_training import StageConfig
from stdiff.device import compute_device
from stdiff.randomness import generator, integer_seed
from stdiff.training import ranks
from stdiff.training.checkpoints import CheckpointFolder, Tensors
from stdiff.training.log import TrainingLog

# What a step computes with: tensors that all have the batch's images as their first axis.
Batch = dict[str, torch.Tensor]


class Interrupted(Exception):
    """The training was asked to stop; its state is saved and the same command goes on."""


class Diverged(RuntimeError):
    """The loss is not finite any more; the last good checkpoint is kept."""


class Stage(Protocol):
    """What the loop trains."""

    modules: nn.ModuleDict  # all trained weights and buffers; frozen parts stand elsewhere
    networks: Sequence[nn.Module]  # all that compute, trained or frozen
    count: int  # number of training samples

    def draw(self, indices: np.ndarray, rng: torch.Generator) -> Batch:
        """All of a batch, what is random in it included; sample ``indices`` in [0, count)."""

    def loss(self, batch: Batch) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Mean loss over a batch, or a part of one, and means of figures to log with it."""


def train(
    stage: Stage,
    settings: StageConfig,
    *,
    seed: int,
    purpose: str,
    state: Path,
    identity: dict[str, str],
    stop_after_s: float | None = None,
) -> Path:
    """Train until ``settings.images`` images have been seen; then the final weights are in place.

    With ``ema_decay > 0`` these are the averaged weights. Returns the JSONL log of the training.
    Where several processes train together (see :mod:`stdiff.training.ranks`), all call this.

    Raises:
        Interrupted: on SIGTERM, SIGINT or after ``stop_after_s`` seconds, with the state saved.
        Diverged: when the loss is not finite.
        InputError: a batch that the processes cannot share.
    """
    ranks.join()
    identity = identity | {"seed": str(seed), "purpose": purpose}
    if not ranks.is_first():
        ranks.wait()
        return _train_in(
            CheckpointFolder.of(state, identity), stage, settings, seed, purpose, stop_after_s
        )
    with CheckpointFolder.open(state, identity) as folder:
        ranks.wait()
        return _train_in(folder, stage, settings, seed, purpose, stop_after_s)


def _train_in(
    folder: CheckpointFolder,
    stage: Stage,
    settings: StageConfig,
    seed: int,
    purpose: str,
    stop_after_s: float | None,
) -> Path:
    for module in (stage.modules, *stage.networks):
        module.to(compute_device())
    if settings.compile:
        for network in stage.networks:
            network.compile()
    progress = Progress(stage.modules, settings)
    if (found := folder.load()) is not None:
        progress.restore(*found)
        if ranks.is_first():
            print(f"{purpose}: goes on at image {progress.images} of {settings.images}")
    log = TrainingLog(folder.path, purpose, progress.images, settings.images, ranks.is_first())
    started_s = time.monotonic()
    stage.modules.train()
    with _stop_requests() as stop, log:
        while progress.images < settings.images:
            indices = sample_order(seed, purpose, progress.images, settings.batch, stage.count)
            rng = torch.Generator().manual_seed(
                integer_seed(seed, f"{purpose} noise", progress.images)
            )
            figures = progress.backward(stage, stage.draw(indices, rng))
            if not math.isfinite(figures["loss"]):
                raise Diverged(
                    f"{purpose}: the loss is {figures['loss']} at image {progress.images}; the "
                    f"last good checkpoint is kept in {folder.path}. Try a lower learning_rate."
                )
            before = progress.images
            figures["gradient_norm"] = progress.step()
            log.write(progress.images, figures)
            out_of_time = bool(stop_after_s) and time.monotonic() - started_s > stop_after_s
            stopping = ranks.agreed(bool(stop) or out_of_time, compute_device())
            every = settings.checkpoint_every_images
            if progress.images // every > before // every or stopping:
                _save(folder, progress)
            if stopping and progress.images < settings.images:
                raise Interrupted(
                    f"{purpose}: stopped at image {progress.images} of {settings.images}; state "
                    f"saved in {folder.path}. The same command goes on from there."
                )
        _save(folder, progress)
    progress.use_average()
    stage.modules.eval()
    return log.file


def _save(folder: CheckpointFolder, progress: Progress) -> None:
    if ranks.is_first():
        folder.save(progress.images, progress.tensors(), progress.settings.keep_latest)


def sample_order(seed: int, purpose: str, seen: int, batch: int, count: int) -> np.ndarray:
    """Indices of the next ``batch`` samples: a fresh permutation of [0, count) each epoch."""
    positions = np.arange(seen, seen + batch)
    epochs = positions // count
    orders = {e: generator(seed, f"{purpose} order", e).permutation(count) for e in set(epochs)}
    return np.array([orders[e][p % count] for e, p in zip(epochs, positions, strict=True)])


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

    def use_average(self) -> None:
        """Put the averaged weights in place of the last ones."""
        with torch.no_grad():
            for weight, average in zip(self.weights, self.average, strict=False):
                weight.copy_(average)

    def _changing(self) -> Tensors:
        """Weights that are trained, and buffers; frozen weights need not be kept."""
        trained = {n: w for n, w in self.modules.named_parameters() if w.requires_grad}
        return trained | dict(self.modules.named_buffers())

    def tensors(self) -> Tensors:
        """Everything a later process needs to go on, by name."""
        tensors = {f"model.{name}": value.detach() for name, value in self._changing().items()}
        tensors |= {f"average.{i}": average for i, average in enumerate(self.average)}
        for i, weight in enumerate(self.weights):
            for key, value in self.optimizer.state.get(weight, {}).items():
                tensors[f"optimizer.{i}.{key}"] = value
        return tensors | {"steps": torch.tensor(self.steps)}

    def restore(self, images: int, tensors: Tensors) -> None:
        """Undo :meth:`tensors`."""
        model = {k.removeprefix("model."): v for k, v in tensors.items() if k.startswith("model.")}
        with torch.no_grad():
            for name, value in self._changing().items():
                value.copy_(model[name])
        for i, average in enumerate(self.average):
            average.copy_(tensors[f"average.{i}"])
        for i, weight in enumerate(self.weights):
            prefix = f"optimizer.{i}."
            self.optimizer.state[weight] = {
                key.removeprefix(prefix): value.to(weight.device)
                for key, value in tensors.items()
                if key.startswith(prefix)
            }
        self.images, self.steps = images, int(tensors["steps"])


def _autocast(precision: str) -> torch.autocast:
    """Nothing is cast in float32."""
    return torch.autocast(compute_device().type, torch.bfloat16, enabled=precision == "bfloat16")


@contextmanager
def _stop_requests() -> Iterator[list[int]]:
    """A list that becomes non-empty when SIGTERM or SIGINT arrives."""
    received: list[int] = []
    signals = (signal.SIGTERM, signal.SIGINT)
    before = {s: signal.signal(s, lambda number, _: received.append(number)) for s in signals}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
