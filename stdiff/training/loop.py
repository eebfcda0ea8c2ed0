"""The training loop of all generator stages, segmenters and classifiers.

Progress is counted in images. Sample order and noise depend on (seed, stream, images seen) only, so
running the same command again resumes from the newest intact checkpoint and, on a CPU with the same
number of threads, ends with bit-identical weights.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch

from stdiff.config.training import LoopConfig
from stdiff.runtime.device import compute_device
from stdiff.runtime.randomness import generator, integer_seed
from stdiff.runtime.stopping import Interrupted, stop_requests
from stdiff.training import distributed
from stdiff.training.checkpoints import CheckpointFolder
from stdiff.training.log import TrainingLog
from stdiff.training.progress import Progress, Stage
from stdiff.training.validation import BestWeights, Validation


class Diverged(RuntimeError):
    """The loss is not finite; the newest checkpoint is kept."""


def train(
    stage: Stage,
    settings: LoopConfig,
    *,
    seed: int,
    stream: str,
    state: Path,
    identity: dict[str, str],
    stop_after_s: float | None = None,
    validation: Validation | None = None,
) -> Path:
    """Train for ``settings.images`` images and leave the final weights in ``stage``.

    The final weights are the best validated ones, or without validation the EMA weights, or without
    EMA the last ones. All processes of a distributed training call this function.

    Args:
        stage: networks and data.
        settings: batch, learning rate and so on.
        seed: of the run.
        stream: name of the random stream; also shown in messages.
        state: folder for checkpoints and logs.
        identity: everything else the weights depend on (see :class:`CheckpointFolder`).
        stop_after_s: stop and save after so many seconds.
        validation: how to choose the best weights.

    Returns:
        The JSONL log.

    Raises:
        Interrupted: on SIGTERM or SIGINT, after ``stop_after_s``, or if another process of the
            training has ended; the state is saved.
        Diverged: the loss is not finite.
        InputError: the batch cannot be divided among the processes.
    """
    distributed.join()
    with _checkpoints(state, identity | {"seed": str(seed), "stream": stream}) as folder:
        for module in (stage.modules, *stage.networks):
            module.to(compute_device())
        if settings.compile:
            for network in stage.networks:
                network.compile()
        progress = Progress(stage.modules, settings)
        best = BestWeights(folder.path, validation.better) if validation else None
        if (found := folder.load(best.resumes) if best else folder.load()) is not None:
            progress.restore(*found)
            if distributed.is_main_process():
                print(f"{stream}: resuming at image {progress.images} of {settings.images}")
        if best and distributed.is_main_process():
            best.write_log()
        log = TrainingLog(folder.path, stream, progress.images, settings.images)
        started_s = time.monotonic()
        stage.modules.train()
        with stop_requests() as stop, log:
            try:
                while progress.images < settings.images:
                    before = progress.images
                    figures = _step(stage, progress, seed, stream, folder)
                    log.write(progress.images, figures)
                    # Before the checkpoint, so that a resumed training need not validate again.
                    if validation and best and progress.crossed(validation.every_images, before):
                        _validate(stage, progress, validation, best, log)
                    late = bool(stop_after_s) and time.monotonic() - started_s > stop_after_s
                    stopping = distributed.any_process(bool(stop) or late)
                    if stopping or progress.crossed(settings.checkpoint_every_images, before):
                        _save(folder, progress, best)
                    if stopping and progress.images < settings.images:
                        raise Interrupted(
                            f"{stream}: stopped at image {progress.images} of {settings.images}; "
                            f"state saved in {folder.path}. Run the same command to resume."
                        )
            except distributed.ProcessLost as lost:
                # The step that could not be shared has changed nothing yet.
                _save(folder, progress, best)
                raise Interrupted(
                    f"{stream}: stopped at image {progress.images}: {lost}; state saved in "
                    f"{folder.path}. Run the same command to resume."
                ) from lost
        progress.use_ema()
        if best:
            best.load_into(progress.model_state())
        stage.modules.eval()
    return log.file


def sample_order(seed: int, stream: str, seen: int, batch: int, count: int) -> np.ndarray:
    """Indices of the next ``batch`` samples: a fresh permutation of [0, count) each epoch."""
    positions = np.arange(seen, seen + batch)
    epochs = positions // count
    orders = {e: generator(seed, f"{stream} order", e).permutation(count) for e in set(epochs)}
    return np.array([orders[e][p % count] for e, p in zip(epochs, positions, strict=True)])


@contextmanager
def _checkpoints(state: Path, identity: dict[str, str]) -> Iterator[CheckpointFolder]:
    """The checkpoint folder, once the main process has locked it."""
    if distributed.is_main_process():
        with CheckpointFolder.open(state, identity) as folder:
            distributed.barrier()
            yield folder
    else:
        distributed.barrier()
        yield CheckpointFolder.of(state, identity)


def _step(
    stage: Stage, progress: Progress, seed: int, stream: str, folder: CheckpointFolder
) -> dict[str, float]:
    """Train on the next batch; returns its figures."""
    at, batch = progress.images, progress.settings.batch
    indices = sample_order(seed, stream, at, batch, stage.count)
    rng = torch.Generator().manual_seed(integer_seed(seed, f"{stream} noise", at))
    figures = progress.backward(stage, stage.sample_batch(indices, rng))
    if not math.isfinite(figures["loss"]):
        raise Diverged(
            f"{stream}: the loss is {figures['loss']} at image {at}; the newest checkpoint is kept "
            f"in {folder.path}. Try a lower learning_rate."
        )
    figures["gradient_norm"] = progress.step()
    return figures


def _validate(
    stage: Stage, progress: Progress, validation: Validation, best: BestWeights, log: TrainingLog
) -> None:
    """Validate the EMA weights in the main process; the others wait."""
    if distributed.is_main_process():
        stage.modules.eval()
        with progress.ema_weights():
            result = validation.validate()
            best.update(progress.images, result, progress.model_state())
        stage.modules.train()
        log.write_validation(progress.images, result)
    distributed.barrier()


def _save(folder: CheckpointFolder, progress: Progress, best: BestWeights | None) -> None:
    if distributed.is_main_process():
        keep = 1 if progress.finished else progress.settings.keep_latest
        about = {"validations": best.results} if best else None
        folder.save(progress.images, progress.state(), keep, about)
