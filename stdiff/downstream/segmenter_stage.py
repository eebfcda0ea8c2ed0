"""One phase of a segmenter's training, as the training loop sees it."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812

from stdiff.downstream.arm_training import ArmStage
from stdiff.downstream.arms import Phase
from stdiff.downstream.augmentation import augment
from stdiff.downstream.images import ArmImages
from stdiff.downstream.networks import all_lesion_logits
from stdiff.training.progress import Batch

# Share of the training after which the consistency has its full weight; the MGCC authors' 30,000
# of 40,000 steps.
_RAMP = 0.75


class SegmenterStage(ArmStage):
    """Augmented images with their masks; the loss of MGCC (arXiv 2305.09447).

    The supervised loss is 0.5 cross-entropy + 1 - soft Dice, averaged over all outputs of a network
    with auxiliary ones (``all_logits``). If the arm has unlabelled images, every batch has as many
    of them as labelled ones, and the outputs' consistency on them is added to the loss.
    """

    def __init__(
        self, network: nn.Module, phase: Phase, images: ArmImages, training_images: int
    ) -> None:
        super().__init__(network, phase, images)
        self.training_images = training_images
        self.seen = self.modules["seen"] = _Counter()

    def sample_batch(self, indices: np.ndarray, rng: torch.Generator) -> Batch:
        """An augmented batch; see :meth:`ArmStage.batch`."""
        cases, unlabelled_NHW = self.batch(indices, rng), self.images.unlabelled_NHW
        images_N1HW, masks_N1HW = augment(
            self._to_device(cases.images_NHW[:, None]).float(),
            self._to_device(cases.masks_NHW[:, None] > 0).float(),
            rng,
        )
        weights_N = self._to_device(cases.weights).float()
        batch = {"images": images_N1HW, "masks": masks_N1HW, "weights": weights_N}
        if unlabelled_NHW is not None:
            drawn = torch.randint(len(unlabelled_NHW), (len(indices),), generator=rng)
            without_N1HW = self._to_device(unlabelled_NHW[drawn.numpy()][:, None]).float()
            batch["unlabelled"], _ = augment(without_N1HW, torch.zeros_like(without_N1HW), rng)
        self._draw_dropout_seed(rng)
        self.seen.add(len(indices))
        return batch

    def training_step(self, batch: Batch) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Supervised loss, plus the weighted consistency if there are unlabelled images.

        Labelled and unlabelled images pass through the network separately. Sharing the batch
        statistics of both, as the authors' code does, gave a worse network even without the
        consistency term (docs/results.md).
        """
        network, unlabelled = self.modules["network"], batch.get("unlabelled")
        with self._seeded_dropout():
            outputs = all_lesion_logits(network, batch["images"])
            others = [] if unlabelled is None else all_lesion_logits(network, unlabelled)
        losses, overlaps = zip(*(_supervised(logits, batch) for logits in outputs), strict=True)
        loss, figures = sum(losses) / len(losses), {"soft_dice": overlaps[0]}
        if others:
            consistency = _consistency(others)
            ramp = ramp_up(self.seen.images / (_RAMP * self.training_images))
            loss = loss + network.consistency_weight * ramp * consistency
            figures["consistency"] = consistency
        return loss, figures


def soft_dice(lesion_N1HW: torch.Tensor, masks_N1HW: torch.Tensor) -> torch.Tensor:
    """Dice (N,) of probabilities against masks, with 1 added to numerator and denominator.

    The added pixel makes it 1 instead of undefined where prediction and mask are empty.
    """
    overlap = (lesion_N1HW * masks_N1HW).sum(dim=(1, 2, 3))
    total = lesion_N1HW.sum(dim=(1, 2, 3)) + masks_N1HW.sum(dim=(1, 2, 3))
    return (2 * overlap + 1) / (total + 1)


def ramp_up(done: float) -> float:
    """exp(-5 (1 - t)^2), t = ``done`` clipped to [0, 1] (arXiv 1610.02242)."""
    return math.exp(-5 * (1 - min(max(done, 0.0), 1.0)) ** 2)


def _supervised(logits_N1HW: torch.Tensor, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
    """Weighted mean of 0.5 cross-entropy + 1 - soft Dice, and the mean soft Dice."""
    cross_entropy_N = F.binary_cross_entropy_with_logits(
        logits_N1HW, batch["masks"], reduction="none"
    ).mean(dim=(1, 2, 3))
    dice_N = soft_dice(logits_N1HW.sigmoid(), batch["masks"])
    return (batch["weights"] * (0.5 * cross_entropy_N + 1 - dice_N)).mean(), dice_N.mean()


def _consistency(outputs: list[torch.Tensor]) -> torch.Tensor:
    """Mean squared difference between the probabilities of auxiliary and main outputs."""
    main, *others = (logits.sigmoid() for logits in outputs)
    return sum(((main - other) ** 2).mean() for other in others) / len(others)


class _Counter(nn.Module):
    """Number of images drawn; a buffer, so that checkpoints hold it."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("drawn", torch.zeros((), dtype=torch.int64))

    def add(self, images: int) -> None:
        self.drawn += images

    @property
    def images(self) -> int:
        return int(self.drawn)
