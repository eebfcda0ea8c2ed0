"""One phase of a segmenter's training, as the training loop sees it."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812

from stdiff.downstream.arms import Phase
from stdiff.downstream.augmentation import augment
from stdiff.downstream.images import ArmImages, LabelledImages
from stdiff.downstream.networks import all_lesion_logits
from stdiff.training.progress import Batch

# Of the training, until the consistency weighs most (the authors': 30,000 of 40,000 steps).
_RAMP = 0.75


class SegmenterStage:
    """Batches of one phase of an arm; the loss of MGCC (arXiv 2305.09447).

    A network with one output is trained by 0.5 cross-entropy + 1 - soft Dice. One with auxiliary
    outputs (``all_logits``) by the mean of that over all of them; and, where the arm has unlabelled
    images, as many of them in every batch as labelled ones, by the consistency of the outputs.

    All arms see the same number of labelled images in the same number of steps, under the same
    augmentation.
    """

    def __init__(
        self, network: nn.Module, phase: Phase, images: ArmImages, training_images: int
    ) -> None:
        self.seen = _Counter()
        self.modules = nn.ModuleDict({"network": network, "seen": self.seen})
        self.networks = (network,)
        # An epoch is one of the real images, or of synthetic ones where only these are seen.
        only_synthetic = phase.synthetic_share == 1 and images.synthetic is not None
        self.count = len(images.synthetic if only_synthetic else images.real)
        self.phase, self.images, self.training_images = phase, images, training_images
        self._dropout_seed = 0

    def sample_batch(self, indices: np.ndarray, rng: torch.Generator) -> Batch:
        """An augmented batch; ``indices`` name real cases, or synthetic ones if these are all."""
        images_NHW, masks_NHW, weights_N = self.batch(indices, rng)
        images_N1HW, masks_N1HW = augment(
            self._on_device(images_NHW[:, None]), self._on_device(masks_NHW[:, None] > 0), rng
        )
        batch = {"images": images_N1HW, "masks": masks_N1HW, "weights": self._on_device(weights_N)}
        if self.images.unlabelled_NHW is not None:
            drawn = torch.randint(len(self.images.unlabelled_NHW), (len(indices),), generator=rng)
            without_N1HW = self._on_device(self.images.unlabelled_NHW[drawn.numpy()][:, None])
            batch["unlabelled"], _ = augment(without_N1HW, torch.zeros_like(without_N1HW), rng)
        # Drop-out takes no generator of its own; see `training_step`.
        self._dropout_seed = int(torch.randint(2**62, (), generator=rng))
        self.seen.add(len(indices))
        return batch

    def training_step(self, batch: Batch) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Supervised loss, plus the weighted consistency where there are unlabelled images.

        Labelled and unlabelled images pass through the network by themselves. Where batch
        normalisation takes its statistics of both together, as the authors' code does, the loss of
        the labelled ones leads to a worse network, also without any weight of the consistency
        (docs/results.md).
        """
        network, unlabelled = self.modules["network"], batch.get("unlabelled")
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self._dropout_seed)
            outputs = all_lesion_logits(network, batch["images"])
            others = [] if unlabelled is None else all_lesion_logits(network, unlabelled)
        losses, overlaps = zip(*(_supervised(logits, batch) for logits in outputs), strict=True)
        loss, figures = sum(losses) / len(losses), {"soft_dice": overlaps[0]}
        if others:
            consistency = _consistency(others)
            risen = ramp_up(self.seen.images / (_RAMP * self.training_images))
            loss = loss + network.consistency_weight * risen * consistency
            figures["consistency"] = consistency
        return loss, figures

    def batch(
        self, indices: np.ndarray, rng: torch.Generator
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Images and masks (N, H, W) uint8 and weights (N,): real ones first, then synthetic."""
        parts = [
            (of.images_NHW[drawn], of.masks_NHW[drawn], of.weights[drawn])
            for of, drawn in drawn_cases(self.phase, self.images, indices, rng)
        ]
        images_NHW, masks_NHW, weights_N = (
            np.concatenate(part) for part in zip(*parts, strict=True)
        )
        return images_NHW, masks_NHW, weights_N

    def _on_device(self, values: np.ndarray) -> torch.Tensor:
        device = next(self.modules.parameters()).device
        return torch.from_numpy(np.ascontiguousarray(values)).to(device).float()


def drawn_cases(
    phase: Phase, images: ArmImages, indices: np.ndarray, rng: torch.Generator
) -> list[tuple[LabelledImages, np.ndarray]]:
    """The real and the synthetic cases of a batch; ``indices`` name real ones, or synthetic ones if
    the phase sees no others.
    """
    kept = indices[: phase.real_in_batch(len(indices))]
    if len(kept) == len(indices) or images.synthetic is None:
        return [(images.real, indices)]
    if not len(kept):
        return [(images.synthetic, indices)]
    drawn = torch.randint(len(images.synthetic), (len(indices) - len(kept),), generator=rng)
    return [(images.real, kept), (images.synthetic, drawn.numpy())]


def soft_dice(lesion_N1HW: torch.Tensor, masks_N1HW: torch.Tensor) -> torch.Tensor:
    """Dice (N,) of probabilities against masks; one pixel is added to both sides of the fraction.

    The pixel makes an empty prediction of an empty mask perfect instead of undefined.
    """
    overlap = (lesion_N1HW * masks_N1HW).sum(dim=(1, 2, 3))
    total = lesion_N1HW.sum(dim=(1, 2, 3)) + masks_N1HW.sum(dim=(1, 2, 3))
    return (2 * overlap + 1) / (total + 1)


def ramp_up(done: float) -> float:
    """exp(-5 (1 - t)^2) of t = ``done`` in [0, 1] (arXiv 1610.02242); 1 beyond."""
    return math.exp(-5 * (1 - min(max(done, 0.0), 1.0)) ** 2)


def _supervised(logits_N1HW: torch.Tensor, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
    """Weighted 0.5 cross-entropy + 1 - soft Dice; mean soft Dice."""
    cross_entropy_N = F.binary_cross_entropy_with_logits(
        logits_N1HW, batch["masks"], reduction="none"
    ).mean(dim=(1, 2, 3))
    dice_N = soft_dice(logits_N1HW.sigmoid(), batch["masks"])
    return (batch["weights"] * (0.5 * cross_entropy_N + 1 - dice_N)).mean(), dice_N.mean()


def _consistency(outputs: list[torch.Tensor]) -> torch.Tensor:
    """Mean squared difference of the auxiliary outputs' probabilities to the main one's."""
    main, *others = (logits.sigmoid() for logits in outputs)
    return sum(((main - other) ** 2).mean() for other in others) / len(others)


class _Counter(nn.Module):
    """Images drawn so far; a buffer, so that it is saved and restored with the weights."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("drawn", torch.zeros((), dtype=torch.int64))

    def add(self, images: int) -> None:
        self.drawn += images

    @property
    def images(self) -> int:
        return int(self.drawn)
