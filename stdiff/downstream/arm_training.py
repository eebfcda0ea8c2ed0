"""Training of a network over the phases of an arm, shared by segmenters and classifiers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from torch import nn

from stdiff.config.training import LoopConfig
from stdiff.downstream.arms import Arm, Phase
from stdiff.downstream.images import ArmImages, LabelledImages, concatenated
from stdiff.training.loop import train
from stdiff.training.progress import Stage
from stdiff.training.validation import Validation

_Settings = TypeVar("_Settings", bound=LoopConfig)


class ArmStage:
    """Samples the images of one phase; subclasses make the batches and compute the loss.

    All arms see the same number of labelled images in the same number of steps, with the same
    augmentation.
    """

    def __init__(self, network: nn.Module, phase: Phase, images: ArmImages) -> None:
        self.modules = nn.ModuleDict({"network": network})
        self.networks = (network,)
        self.phase, self.images = phase, images
        # An epoch covers the real images, or the synthetic ones if the phase has no others.
        only_synthetic = phase.synthetic_share == 1 and images.synthetic is not None
        self.count = len(images.synthetic if only_synthetic else images.real)
        self._dropout_seed = 0

    def batch(self, indices: np.ndarray, rng: torch.Generator) -> LabelledImages:
        """The cases of a batch, real ones first, then synthetic.

        Args:
            indices: (N,) real cases, or synthetic ones if the phase has no others. In a mixed
                batch the last ones are replaced by random synthetic cases.
            rng: Draws the synthetic cases of a mixed batch.
        """
        real, synthetic = self.images.real, self.images.synthetic
        kept = indices[: self.phase.real_in_batch(len(indices))]
        if len(kept) == len(indices) or synthetic is None:
            return real.select(indices)
        if not len(kept):
            return synthetic.select(indices)
        drawn = torch.randint(len(synthetic), (len(indices) - len(kept),), generator=rng)
        return concatenated([real.select(kept), synthetic.select(drawn.numpy())])

    def _to_device(self, values: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(np.ascontiguousarray(values)).to(
            next(self.modules.parameters()).device
        )

    def _draw_dropout_seed(self, rng: torch.Generator) -> None:
        self._dropout_seed = int(torch.randint(2**62, (), generator=rng))

    @contextmanager
    def _seeded_dropout(self) -> Iterator[None]:
        """Dropout layers take no generator: seed torch's global one, and restore it afterwards."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self._dropout_seed)
            yield


def train_phases(
    arm: Arm,
    stage_of: Callable[[Phase, int], Stage],
    settings: LoopConfig,
    *,
    seed: int,
    stream: str,
    state: Path,
    identity: dict[str, str],
    validation: Validation | None = None,
) -> None:
    """Train all phases of an arm one after the other.

    Args:
        arm: The arm.
        stage_of: Makes the stage of a phase from the phase and its number of images.
        settings: Training settings of all phases together.
        seed: The run's seed.
        stream: Name of the random stream.
        state: Folder of the checkpoints, with one subfolder per phase.
        identity: Everything else that determines the weights, so that checkpoints of another
            training are not resumed.
        validation: on held-out lesions, during the last phase.
    """
    phases = arm.phases
    for phase in phases:
        part = phase_settings(phase, settings)
        train(
            stage_of(phase, part.images),
            part,
            seed=seed,
            stream=f"{stream} {phase.name}" if len(phases) > 1 else stream,
            state=state / phase.name,
            identity=identity | {"phases": repr(phases), "training": settings.model_dump_json()},
            validation=validation if phase == phases[-1] else None,
        )


def phase_settings(phase: Phase, settings: _Settings) -> _Settings:
    """The settings with the images of one phase, a whole number of batches (at least one)."""
    batches = max(1, round(phase.fraction * settings.images / settings.batch))
    return settings.model_copy(update={"images": batches * settings.batch})
