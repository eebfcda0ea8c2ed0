"""One phase of a classifier's training, as the training loop sees it."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812

from stdiff.downstream.arms import Phase
from stdiff.downstream.augmentation import augment
from stdiff.downstream.images import ArmImages
from stdiff.downstream.segmenter_stage import drawn_cases
from stdiff.training.progress import Batch


class ClassifierStage:
    """Batches of one phase of an arm, as ``SegmenterStage`` draws them; cross-entropy."""

    def __init__(self, network: nn.Module, phase: Phase, images: ArmImages) -> None:
        self.modules = nn.ModuleDict({"network": network})
        self.networks = (network,)
        self.phase, self.images = phase, images
        only_synthetic = phase.synthetic_share == 1 and images.synthetic is not None
        self.count = len(images.synthetic if only_synthetic else images.real)
        self._dropout_seed = 0

    def sample_batch(self, indices: np.ndarray, rng: torch.Generator) -> Batch:
        """An augmented batch; ``indices`` name real cases, or synthetic ones if these are all."""
        parts = [
            (of.images_NHW[drawn], of.classes_N[drawn], of.weights[drawn])
            for of, drawn in drawn_cases(self.phase, self.images, indices, rng)
        ]
        images, classes, weights = (np.concatenate(part) for part in zip(*parts, strict=True))
        device = next(self.modules.parameters()).device
        images_N1HW = torch.from_numpy(images[:, None]).to(device).float()
        images_N1HW, _ = augment(images_N1HW, torch.zeros_like(images_N1HW), rng)
        # Drop-out takes no generator of its own; see `training_step`.
        self._dropout_seed = int(torch.randint(2**62, (), generator=rng))
        return {
            "images": images_N1HW,
            "classes": torch.from_numpy(classes).to(device),
            "weights": torch.from_numpy(weights).to(device),
        }

    def training_step(self, batch: Batch) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Weighted mean cross-entropy, and the share of right classes."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self._dropout_seed)
            logits_NC = self.modules["network"](prepared(batch["images"]))
        loss_N = F.cross_entropy(logits_NC.float(), batch["classes"], reduction="none")
        right = (logits_NC.argmax(dim=1) == batch["classes"]).float().mean()
        return (batch["weights"] * loss_N).mean(), {"accuracy": right}


def prepared(grey_N1HW: torch.Tensor) -> torch.Tensor:
    """Grey levels [0, 255] to about zero mean and unit spread."""
    return (grey_N1HW / 255 - 0.25) / 0.2
