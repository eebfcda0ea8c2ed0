"""A small network that distinguishes generated from real masks by their pixels.

It sees differences of outline and place that the descriptors of
:mod:`stdiff.evaluation.mask_realism` do not measure.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
import torch
from sklearn.metrics import roc_auc_score
from torch import nn
from torch.nn import functional as F  # noqa: N812
from tqdm import tqdm

from stdiff.evaluation.mask_realism import check_sizes, grouped_folds
from stdiff.runtime.device import compute_device
from stdiff.runtime.files import InputError
from stdiff.runtime.randomness import integer_seed

_WIDTHS = (16, 32, 64, 64)
# Every block halves the side; a smaller image would lose its last pixel.
_MIN_SIZE_PX = 2 ** len(_WIDTHS)
_DROPOUT, _PEAK_RATE, _WEIGHT_DECAY = 0.3, 4e-3, 1e-2
_BATCH, _TEST_BATCH = 32, 512


def network_auc(
    generated_NHW: np.ndarray,
    real_NHW: np.ndarray,
    real_groups: Sequence[Any],
    seed: int,
    *,
    size_px: int = 64,
    epochs: int = 15,
) -> float:
    """Area under the ROC curve of a small network that classifies masks as generated or real.

    A classifier two-sample test (Lopez-Paz and Oquab 2017, arXiv 1610.06545): 0.5 =
    indistinguishable, 1 = always distinguished. Scores are pooled over
    :func:`stdiff.evaluation.mask_realism.grouped_folds`: no network scores a mask of a patient it
    was trained on. The input is the whole mask, mirrored left to right half of the time. Results
    are reproducible on a CPU, and nearly so on a GPU.

    Args:
        generated_NHW: any dtype, above zero = lesion.
        real_NHW: likewise, of the same height and width.
        real_groups: patient (or other group) of each real mask.
        seed: of the run.
        size_px: side of the square to which masks are reduced by area averaging.
        epochs: passes over the masks of a fold.

    Raises:
        InputError: masks of different sizes; too few masks or groups, see
            :func:`stdiff.evaluation.mask_realism.grouped_folds`; too small a ``size_px``; no epoch.
    """
    if size_px < _MIN_SIZE_PX or epochs < 1:
        raise InputError(
            f"size_px {size_px}, epochs {epochs}; expected at least {_MIN_SIZE_PX} and 1"
        )
    check_sizes(generated_NHW, real_NHW)
    labels_N, folds = grouped_folds(len(generated_NHW), len(real_NHW), real_groups, seed)
    images_N1HW = torch.cat([_reduced(masks, size_px) for masks in (generated_NHW, real_NHW)])
    targets_N = torch.from_numpy(labels_N).float()
    logits_N = np.zeros(len(labels_N))
    with tqdm(
        total=len(folds) * epochs, desc="network on masks", unit="epoch", disable=None
    ) as progress:
        for fold, (train, test) in enumerate(folds):
            # Initial weights are drawn from torch's global generator, and so is dropout.
            with torch.random.fork_rng():
                torch.manual_seed(integer_seed(seed, "mask network weights", fold))
                rng = torch.Generator().manual_seed(
                    integer_seed(seed, "mask network batches", fold)
                )
                network = _trained(images_N1HW[train], targets_N[train], epochs, rng, progress)
            logits_N[test] = _logits(network, images_N1HW[test])
    return float(roc_auc_score(labels_N, logits_N))


def _reduced(masks_NHW: np.ndarray, size_px: int) -> torch.Tensor:
    """(N, 1, size, size) float32: lesion fraction of each pixel, in [0, 1]."""
    masks_NHW = (masks_NHW > 0).astype(np.float32)
    size = (size_px, size_px)
    small = [cv2.resize(mask_HW, size, interpolation=cv2.INTER_AREA) for mask_HW in masks_NHW]
    return torch.from_numpy(np.stack(small)[:, None])


def _network() -> nn.Sequential:
    """(N, 1, H, W) masks to (N, 1) logits of being real."""
    layers: list[nn.Module] = []
    width = 1
    for wider in _WIDTHS:
        layers += [nn.Conv2d(width, wider, 3, padding=1), nn.BatchNorm2d(wider)]
        layers += [nn.ReLU(), nn.MaxPool2d(2)]
        width = wider
    layers += [nn.AdaptiveAvgPool2d(2), nn.Flatten()]
    return nn.Sequential(*layers, nn.Dropout(_DROPOUT), nn.Linear(4 * width, 1))


def _trained(
    images_N1HW: torch.Tensor,
    targets_N: torch.Tensor,
    epochs: int,
    rng: torch.Generator,
    progress: tqdm,
) -> nn.Sequential:
    """A network fitted to masks by binary cross-entropy, in evaluation mode."""
    device = compute_device()
    network = _network().to(device)
    batch = min(_BATCH, len(targets_N))
    # The incomplete last batch is left out: it may be too small for batch normalisation.
    steps = len(targets_N) // batch
    optimiser = torch.optim.AdamW(network.parameters(), weight_decay=_WEIGHT_DECAY)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, _PEAK_RATE, total_steps=epochs * steps
    )
    for _ in range(epochs):
        order = torch.randperm(len(targets_N), generator=rng)[: steps * batch]
        for indices in order.split(batch):
            shown_N1HW = images_N1HW[indices]
            mirrored = torch.rand(batch, generator=rng) < 0.5
            shown_N1HW[mirrored] = shown_N1HW[mirrored].flip(-1)
            logits_N = network(shown_N1HW.to(device))[:, 0]
            loss = F.binary_cross_entropy_with_logits(logits_N, targets_N[indices].to(device))
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
        progress.update()
    return network.eval()


@torch.no_grad()
def _logits(network: nn.Sequential, images_N1HW: torch.Tensor) -> np.ndarray:
    """(N,) logits of being real."""
    device = compute_device()
    parts = [network(part.to(device))[:, 0].cpu() for part in images_N1HW.split(_TEST_BATCH)]
    return torch.cat(parts).numpy()
