"""The training loop, shared by all stages of the generator and by the segmenters.

Progress is counted in images. Sample order and noise are drawn from (seed, purpose, images seen),
so running the same command again goes on from the newest whole checkpoint and, on CPU with the
same number of threads, ends with the same weights bit for bit.
"""

from __future__ import annotations

import math
import time
from pathlib import Path

import numpy as np
import torch

from stdiff.config.training import StageConfig
from stdiff.runtime.device import compute_device
from stdiff.runtime.randomness import generator, integer_seed
from stdiff.runtime.stopping import Interrupted, stop_requests
from stdiff.training import distributed as ranks
from stdiff.training.checkpoints import CheckpointFolder
from stdiff.training.log import TrainingLog
from stdiff.training.progress import Progress, Stage
from stdiff.training.validation import BestWeights, Watch


class Diverged(RuntimeError):
    """The loss is not finite any more; the last good checkpoint is kept."""


def train(
    stage: Stage,
    settings: StageConfig,
    *,
    seed: int,
    purpose: str,
    state: Path,
    identity: dict[str, str],
    stop_after_s: float | None = None,
    watch: Watch | None = None,
) -> Path:
    """Train until ``settings.images`` images have been seen; then the final weights are in place.

    With ``ema_decay > 0`` these are the averaged weights; if the training is watched, those that
    looked best. Returns the JSONL log of the training.
    Where several processes train together (see :mod:`stdiff.training.distributed`), all call this.

    Raises:
        Interrupted: on SIGTERM, SIGINT, after ``stop_after_s`` seconds, or when another process of
            the training has ended; with the state saved.
        Diverged: when the loss is not finite.
        InputError: a batch that the processes cannot share.
    """
    ranks.join()
    identity = identity | {"seed": str(seed), "purpose": purpose}
    if not ranks.is_first():
        ranks.wait()
        folder = CheckpointFolder.of(state, identity)
        return _train_in(folder, stage, settings, seed, purpose, stop_after_s, watch)
    with CheckpointFolder.open(state, identity) as folder:
        ranks.wait()
        return _train_in(folder, stage, settings, seed, purpose, stop_after_s, watch)


def _train_in(
    folder: CheckpointFolder,
    stage: Stage,
    settings: StageConfig,
    seed: int,
    purpose: str,
    stop_after_s: float | None,
    watch: Watch | None,
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
    best = BestWeights(folder.path, watch.better) if watch else None
    if best and ranks.is_first():
        best.forget_after(progress.images)
    log = TrainingLog(folder.path, purpose, progress.images, settings.images, ranks.is_first())
    started_s = time.monotonic()
    stage.modules.train()
    with stop_requests() as stop, log:
        try:
            while progress.images < settings.images:
                before = progress.images
                figures = _take_step(stage, progress, seed, purpose, folder)
                log.write(progress.images, figures)
                # Before the checkpoint: a training that goes on from there has been looked at.
                if watch and best and progress.crossed(watch.every_images, before):
                    _look(stage, progress, watch, best, log)
                out_of_time = bool(stop_after_s) and time.monotonic() - started_s > stop_after_s
                stopping = ranks.agreed(bool(stop) or out_of_time, compute_device())
                if progress.crossed(settings.checkpoint_every_images, before) or stopping:
                    _save(folder, progress)
                if stopping and progress.images < settings.images:
                    raise Interrupted(
                        f"{purpose}: stopped at image {progress.images} of {settings.images}; "
                        f"state saved in {folder.path}. The same command goes on from there."
                    )
        except ranks.Lost as lost:
            # Nothing of the step that could not be shared is in the state.
            _save(folder, progress)
            raise Interrupted(
                f"{purpose}: stopped at image {progress.images}: {lost}. The newest "
                f"checkpoint is in {folder.path}; the same command goes on from there."
            ) from lost
    progress.use_average()
    if best:
        best.put_into(progress.changing())
    stage.modules.eval()
    return log.file


def _take_step(
    stage: Stage, progress: Progress, seed: int, purpose: str, folder: CheckpointFolder
) -> dict[str, float]:
    """Train on the next batch; returns its figures."""
    at, batch = progress.images, progress.settings.batch
    indices = sample_order(seed, purpose, at, batch, stage.count)
    rng = torch.Generator().manual_seed(integer_seed(seed, f"{purpose} noise", at))
    figures = progress.backward(stage, stage.draw(indices, rng))
    if not math.isfinite(figures["loss"]):
        raise Diverged(
            f"{purpose}: the loss is {figures['loss']} at image {at}; the last good checkpoint is "
            f"kept in {folder.path}. Try a lower learning_rate."
        )
    figures["gradient_norm"] = progress.step()
    return figures


def _look(
    stage: Stage, progress: Progress, watch: Watch, best: BestWeights, log: TrainingLog
) -> None:
    """Look at the averaged weights, in the first process; the others wait."""
    if ranks.is_first():
        stage.modules.eval()
        with progress.averaged():
            look = watch.look()
            best.see(progress.images, look, progress.changing())
        stage.modules.train()
        log.show(progress.images, look)
    ranks.wait()


def _save(folder: CheckpointFolder, progress: Progress) -> None:
    if ranks.is_first():
        folder.save(progress.images, progress.tensors(), progress.settings.keep_latest)


def sample_order(seed: int, purpose: str, seen: int, batch: int, count: int) -> np.ndarray:
    """Indices of the next ``batch`` samples: a fresh permutation of [0, count) each epoch."""
    positions = np.arange(seen, seen + batch)
    epochs = positions // count
    orders = {e: generator(seed, f"{purpose} order", e).permutation(count) for e in set(epochs)}
    return np.array([orders[e][p % count] for e, p in zip(epochs, positions, strict=True)])
