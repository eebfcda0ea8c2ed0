"""Build, apply, save and load segmentation networks.

The functions take 8-bit grey images of any size; normalisation and padding are done only here.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812

from stdiff.config.downstream import SMP_NETWORKS, SegmenterConfig
from stdiff.config.training import LoopConfig
from stdiff.downstream.architectures import build_network
from stdiff.runtime.files import InputError
from stdiff.runtime.tensor_files import Damaged, load_tensors, not_finite, save_tensors
from stdiff.table.label_budget import LabelBudget

_STRIDE_PX = 32  # encoders halve the image five times
_BATCH = 32


def build_segmenter(config: SegmenterConfig, seed: int = 0) -> nn.Module:
    """A network with random weights from ``seed``: one grey input, one lesion logit per pixel.

    Raises:
        InputError: see :func:`stdiff.downstream.architectures.build_network`.
    """
    # torch's initialisers take no generator, so the global one is seeded and then restored.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build_network(config)


def check_image_size(
    network: nn.Module, config: SegmenterConfig, size_px: int, training: LoopConfig | None = None
) -> None:
    """Try a training step of a copy of the network, and a prediction, on square images.

    Args:
        network: on the CPU; left as it is.
        config: of the network.
        size_px: side of the images.
        training: gives the number of images computed at once; one is special, as batch
            normalisation may need more, other numbers are not.

    Raises:
        InputError: it fails, or does not return one logit per pixel.
    """
    name = f"segmenter {config.network}"
    if config.network in SMP_NETWORKS:
        name += f" with encoder {config.encoder!r}"

    def step(trial: nn.Module, x_N1HW: torch.Tensor) -> None:
        sum(logits.float().mean() for logits in all_lesion_logits(trial, x_N1HW)).backward()

    try_training_step(network, step, name, size_px, "segmentation.training", training)
    size = (2, 1, size_px, size_px)
    with torch.no_grad():
        shape = tuple(lesion_logits(copy.deepcopy(network).eval(), torch.zeros(size)).shape)
    if shape != size:
        raise InputError(
            f"segmenter {config.network} returns {shape} for images {size}; expected one logit per "
            "pixel"
        )


def try_training_step(
    network: nn.Module,
    step: Callable[[nn.Module, torch.Tensor], None],
    name: str,
    size_px: int,
    section: str,
    training: LoopConfig | None,
) -> None:
    """Try ``step``, a forward and a backward pass, on grey images in a copy of the network.

    Raises:
        InputError: it fails; the message calls the network ``name``, its settings ``section``.
    """
    at_once = (training.microbatch or training.batch) if training else 2

    def failure(images: int) -> Exception | None:
        trial = copy.deepcopy(network).train()
        # Dropout draws from torch's global generator.
        with torch.random.fork_rng(devices=[]):
            try:
                step(trial, 255 * torch.rand(images, 1, size_px, size_px))
            except Exception as error:  # networks of others may raise anything
                return error
        return None

    if (error := failure(min(at_once, 2))) is None:
        return
    reason = " ".join(str(error).split()) or type(error).__name__
    if training and at_once == 1 and failure(2) is None:
        key = "microbatch" if training.microbatch else "batch"
        raise InputError(
            f"{section}.{key} 1: {name} cannot be trained on one image at once ({reason}); e.g. "
            f"{key}: 2"
        ) from error
    raise InputError(
        f"{name} cannot take images of {size_px} px ({reason}); choose another network or encoder, "
        "or a larger image.size_px"
    ) from error


def lesion_logits(network: nn.Module, grey_N1HW: torch.Tensor) -> torch.Tensor:
    """Logits (N, 1, H, W) of grey images (N, 1, H, W) with values in [0, 255]."""
    height, width = grey_N1HW.shape[-2:]
    return network(_padded(grey_N1HW))[..., :height, :width]


def all_lesion_logits(network: nn.Module, grey_N1HW: torch.Tensor) -> list[torch.Tensor]:
    """:func:`lesion_logits` of the main output, then of the auxiliary ones if any."""
    if not hasattr(network, "all_logits"):
        return [lesion_logits(network, grey_N1HW)]
    height, width = grey_N1HW.shape[-2:]
    return [logits[..., :height, :width] for logits in network.all_logits(_padded(grey_N1HW))]


def segment(network: nn.Module, images_NHW: np.ndarray) -> np.ndarray:
    """Masks (N, H, W) uint8 of uint8 images: 255 where the lesion probability is above 0.5.

    Leaves the network in evaluation mode.
    """
    return (segment_logits(network, images_NHW) > 0).astype(np.uint8) * 255


@torch.inference_mode()
def segment_logits(network: nn.Module, images_NHW: np.ndarray) -> np.ndarray:
    """Lesion logits (N, H, W) float32 of uint8 images.

    Leaves the network in evaluation mode.
    """
    logits = [np.zeros((0, *images_NHW.shape[1:]), np.float32)]
    for grey_N1HW in device_batches(network, images_NHW):
        logits.append(lesion_logits(network, grey_N1HW)[:, 0].float().cpu().numpy())
    return np.concatenate(logits)


@torch.inference_mode()
def image_features(network: nn.Module, images_NHW: np.ndarray) -> np.ndarray:
    """Deepest encoder features (N, D) float32 of uint8 images, averaged over each image.

    Leaves the network in evaluation mode.

    Raises:
        InputError: the network has no ``encoder`` that returns a list of feature maps.
    """
    features = [
        _deepest_features(network, _padded(grey_N1HW)).mean(dim=(2, 3)).float().cpu().numpy()
        for grey_N1HW in device_batches(network, images_NHW)
    ]
    return np.concatenate(features)


def save_network(
    network: nn.Module,
    path: Path,
    used: Mapping[str, Sequence[str]],
    takes: Mapping[str, Any] | None = None,
    labels: LabelBudget | None = None,
) -> None:
    """Write the weights as safetensors, atomically, with what they were trained on.

    Args:
        network: The trained segmenter or classifier.
        path: File to write.
        used: Case ids by use: ``labels``, ``images`` (without label) or ``chosen_on`` (for
            selecting weights); ``corpora`` and ``models`` of synthetic images. See
            :mod:`stdiff.evaluation.audit`.
        takes: The network and the images it takes, for :mod:`stdiff.downstream.segmenter`.
        labels: The label budget; None = unknown.
    """
    weights = {
        name: value.detach().cpu().clone(memory_format=torch.contiguous_format)
        for name, value in network.state_dict().items()
    }
    known = {use: list(ids) for use, ids in used.items()}
    about = {"known": known, "labels": labels and str(labels), "takes": takes}
    save_tensors(path, weights, about)


def load_segmenter(config: SegmenterConfig, path: Path) -> nn.Module:
    """The network of ``config`` with weights written by :func:`save_network`.

    Raises:
        InputError: the file is missing, damaged, or holds the weights of another network.
    """
    network = build_segmenter(config)
    try:
        weights = load_tensors(path)
        if not weights:
            raise InputError(
                f"{path}: this training failed (see `reason` in the table beside it); fix the "
                "cause, delete both files and rerun it"
            )
        if wrong := not_finite(weights):
            raise InputError(
                f"{path}: has NaN or infinite values in {wrong[0]}; delete it and rerun "
                "`stdiff segment`"
            )
        network.load_state_dict(weights)
    except Damaged as damage:
        raise InputError(f"{damage}; delete it and rerun `stdiff segment`") from damage
    except RuntimeError as error:
        raise InputError(
            f"{path}: not the weights of {config.network} with encoder {config.encoder} "
            f"({str(error).splitlines()[0]}); pass the segmenter they were trained as"
        ) from error
    return network.eval()


def _deepest_features(network: nn.Module, x_N1HW: torch.Tensor) -> torch.Tensor:
    """The last feature map (N, D, h, w) of the network's encoder."""
    encoder = getattr(network, "encoder", None)
    maps = encoder(x_N1HW) if callable(encoder) else None
    if not isinstance(maps, list | tuple) or not maps or getattr(maps[-1], "ndim", 0) != 4:
        raise InputError(
            f"{type(network).__name__} has no encoder that returns a list of feature maps to "
            "compare images by; put a segmenter with one first in segmentation.segmenters, e.g. "
            "unet_resnet18: {network: Unet}"
        )
    return maps[-1]


def normalised(grey_N1HW: torch.Tensor) -> torch.Tensor:
    """Grey levels [0, 255] scaled to a mean near 0 and a standard deviation near 1."""
    # Ultrasound frames have a mean near 0.25 and a standard deviation near 0.2 of the range.
    return (grey_N1HW / 255 - 0.25) / 0.2


def device_batches(
    network: nn.Module, images_NHW: np.ndarray, size: int = _BATCH
) -> Iterator[torch.Tensor]:
    """Float batches (N, 1, H, W) of uint8 images on the network's device.

    Sets the network to evaluation mode.
    """
    network.eval()
    device = next(network.parameters()).device
    for start in range(0, len(images_NHW), size):
        yield torch.from_numpy(images_NHW[start : start + size, None]).to(device).float()


def _padded(grey_N1HW: torch.Tensor) -> torch.Tensor:
    """Normalised images with the edges repeated up to a multiple of the stride."""
    height, width = grey_N1HW.shape[-2:]
    pad = (0, -width % _STRIDE_PX, 0, -height % _STRIDE_PX)
    return F.pad(normalised(grey_N1HW), pad, mode="replicate")
