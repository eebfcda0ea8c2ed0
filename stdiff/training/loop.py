"""The training loop, shared by all stages of the generator and by the segmenters.

Progress is counted in images. Sample order and noise are drawn from (seed, purpose, images seen),
so running the same command again goes on from the newest whole checkpoint and, on CPU with the
same number of threads, ends with the same weights bit for bit.
"""

from __future__ import annotations

import json
import math
import resource
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import nn
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from stdiff.config_generator import StageConfig
from stdiff.device import compute_device
from stdiff.randomness import generator, integer_seed
from stdiff.training.checkpoints import CheckpointFolder, Tensors

LOG_EVERY_S = 5.0


class Interrupted(Exception):
    """The training was asked to stop; its state is saved and the same command goes on."""


class Diverged(RuntimeError):
    """The loss is not finite any more; the last good checkpoint is kept."""


class Stage(Protocol):
    """What the loop trains."""

    modules: nn.ModuleDict  # all trained weights and buffers; frozen parts stand elsewhere
    count: int  # number of training samples

    def loss(
        self, indices: np.ndarray, rng: torch.Generator
    ) -> tuple[torch.Tensor, dict[str, float]]:
        """Loss of the samples ``indices`` (each in [0, count)) and figures to log with it."""


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

    Raises:
        Interrupted: on SIGTERM, SIGINT or after ``stop_after_s`` seconds, with the state saved.
        Diverged: when the loss is not finite.
    """
    with CheckpointFolder.open(state, identity | {"seed": str(seed), "purpose": purpose}) as folder:
        return _train_in(folder, stage, settings, seed, purpose, stop_after_s)


def _train_in(
    folder: CheckpointFolder,
    stage: Stage,
    settings: StageConfig,
    seed: int,
    purpose: str,
    stop_after_s: float | None,
) -> Path:
    stage.modules.to(compute_device())
    progress = _Progress(stage.modules, settings)
    if (found := folder.load()) is not None:
        progress.restore(*found)
        print(f"{purpose}: goes on at image {progress.images} of {settings.images}")
    log = _Log(folder.path, purpose, progress.images, settings.images)
    started_s = time.monotonic()
    stage.modules.train()
    with _stop_requests() as stop, log:
        while progress.images < settings.images:
            indices = sample_order(seed, purpose, progress.images, settings.batch, stage.count)
            rng = torch.Generator().manual_seed(
                integer_seed(seed, f"{purpose} noise", progress.images)
            )
            loss, figures = stage.loss(indices, rng)
            if not torch.isfinite(loss):
                raise Diverged(
                    f"{purpose}: the loss is {loss.item()} at image {progress.images}; the last "
                    f"good checkpoint is kept in {folder.path}. Try a lower learning_rate."
                )
            before = progress.images
            figures["gradient_norm"] = progress.step(loss)
            log.write(progress.images, {"loss": loss.item(), **figures})
            out_of_time = stop_after_s and time.monotonic() - started_s > stop_after_s
            every = settings.checkpoint_every_images
            if progress.images // every > before // every or stop or out_of_time:
                folder.save(progress.images, progress.tensors())
            if (stop or out_of_time) and progress.images < settings.images:
                raise Interrupted(
                    f"{purpose}: stopped at image {progress.images} of {settings.images}; state "
                    f"saved in {folder.path}. The same command goes on from there."
                )
        folder.save(progress.images, progress.tensors())
    progress.use_average()
    stage.modules.eval()
    return log.file


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


class _Progress:
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

    def step(self, loss: torch.Tensor) -> float:
        """One optimisation step; returns the gradient norm before clipping."""
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(self.images, self.settings)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
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

    def tensors(self) -> Tensors:
        """Everything a later process needs to go on, by name."""
        tensors = {f"model.{k}": v.detach() for k, v in self.modules.state_dict().items()}
        tensors |= {f"average.{i}": average for i, average in enumerate(self.average)}
        for i, weight in enumerate(self.weights):
            for key, value in self.optimizer.state.get(weight, {}).items():
                tensors[f"optimizer.{i}.{key}"] = value
        return tensors | {"steps": torch.tensor(self.steps)}

    def restore(self, images: int, tensors: Tensors) -> None:
        """Undo :meth:`tensors`."""
        model = {k.removeprefix("model."): v for k, v in tensors.items() if k.startswith("model.")}
        self.modules.load_state_dict(model)
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


class _Log:
    """One status line for people, JSONL and TensorBoard for later."""

    def __init__(self, folder: Path, purpose: str, images: int, total: int) -> None:
        self.file = folder / "log.jsonl"
        # Lines written after the checkpoint we go on from will be written again.
        kept = [line for line in _lines(self.file) if json.loads(line)["images"] <= images]
        self.file.write_text("".join(kept))
        self.board = SummaryWriter(str(folder / "tensorboard"), purge_step=images)
        self.bar = tqdm(total=total, initial=images, desc=purpose, unit="image", mininterval=1)
        self.since: list[dict[str, float]] = []
        self.last_s, self.last_images = time.monotonic(), images

    def __enter__(self) -> None:
        pass

    def __exit__(self, *_: object) -> None:
        self._flush(self.bar.n)
        self.board.close()
        self.bar.close()

    def write(self, images: int, figures: dict[str, float]) -> None:
        self.since.append(figures)
        self.bar.update(images - self.bar.n)
        if time.monotonic() - self.last_s > LOG_EVERY_S:
            self._flush(images)

    def _flush(self, images: int) -> None:
        if not self.since:
            return
        elapsed_s = max(1e-9, time.monotonic() - self.last_s)
        entry: dict[str, Any] = {"images": images}
        for key in self.since[-1]:
            entry[key] = float(np.mean([figures[key] for figures in self.since]))
        entry["images_per_s"] = (images - self.last_images) / elapsed_s
        entry["peak_memory_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        with self.file.open("a") as handle:
            handle.write(json.dumps(entry) + "\n")
        for key, value in entry.items():
            self.board.add_scalar(key, value, images)
        self.bar.set_postfix(
            loss=f"{entry['loss']:.4f}", memory_mb=f"{entry['peak_memory_mb']:.0f}", refresh=False
        )
        self.since, self.last_s, self.last_images = [], time.monotonic(), images


def _lines(file: Path) -> list[str]:
    """Whole lines of a file that a crash may have cut short."""
    if not file.exists():
        return []
    return [line for line in file.read_text().splitlines(keepends=True) if line.endswith("\n")]


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
