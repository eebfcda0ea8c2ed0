"""One phase of a classifier's training, as the training loop sees it."""

from __future__ import annotations

import numpy as np
import torch
from torch.nn import functional as F  # noqa: N812

from stdiff.downstream.arm_training import ArmStage
from stdiff.downstream.augmentation import augment
from stdiff.downstream.networks import normalised
from stdiff.training.progress import Batch


class ClassifierStage(ArmStage):
    """Augmented images with their classes; weighted cross-entropy."""

    def sample_batch(self, indices: np.ndarray, rng: torch.Generator) -> Batch:
        """An augmented batch; see :meth:`ArmStage.batch`."""
        cases = self.batch(indices, rng)
        images_N1HW = self._to_device(cases.images_NHW[:, None]).float()
        images_N1HW, _ = augment(images_N1HW, torch.zeros_like(images_N1HW), rng)
        self._draw_dropout_seed(rng)
        return {
            "images": images_N1HW,
            "classes": self._to_device(cases.classes_N),
            "weights": self._to_device(cases.weights),
        }

    def training_step(self, batch: Batch) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Weighted mean cross-entropy, and the accuracy."""
        with self._seeded_dropout():
            logits_NC = self.modules["network"](normalised(batch["images"]))
        loss_N = F.cross_entropy(logits_NC.float(), batch["classes"], reduction="none")
        correct = (logits_NC.argmax(dim=1) == batch["classes"]).float().mean()
        return (batch["weights"] * loss_N).mean(), {"accuracy": correct}
