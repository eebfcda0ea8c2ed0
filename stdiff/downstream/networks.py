"""Segmentation networks behind a few functions.

All of them take 8-bit grey images of any size; normalisation and padding stand here and nowhere
else.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812

from stdiff.config.segmentation import SegmenterConfig
from stdiff.downstream.factories import build_network
from stdiff.runtime.files import InputError
from stdiff.runtime.tensor_files import Damaged, load_tensors, save_tensors

_STRIDE_PX = 32  # encoders halve the image five times
_BATCH = 32


def build_segmenter(config: SegmenterConfig, seed: int = 0) -> nn.Module:
    """A network with one grey input and one lesion logit, with random weights drawn from ``seed``.

    Raises:
        InputError: see :func:`stdiff.downstream.factories.build_network`.
    """
    # torch's initialisers take no generator: the global one is lent, and restored afterwards.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build_network(config)


@torch.inference_mode()
def check_takes(network: nn.Module, config: SegmenterConfig, size_px: int) -> None:
    """Refuse a network that cannot take square images of this side.

    Raises:
        InputError: it fails, or gives something else than one logit for every pixel.
    """
    size = (2, 1, size_px, size_px)
    try:
        shape = tuple(lesion_logits(network.eval(), torch.zeros(size)).shape)
    except (RuntimeError, ValueError) as error:
        raise InputError(
            f"segmenter {config.network} cannot take images of {size_px} px ({error}); choose "
            "another network, or a larger image.size_px"
        ) from error
    if shape != size:
        raise InputError(
            f"segmenter {config.network} gives {shape} for images of {size}; expected one logit "
            "for every pixel"
        )


def lesion_logits(network: nn.Module, grey_N1HW: torch.Tensor) -> torch.Tensor:
    """Logits (N, 1, H, W) of grey images (N, 1, H, W) with values in [0, 255]."""
    height, width = grey_N1HW.shape[-2:]
    return network(_prepared(grey_N1HW))[..., :height, :width]


def all_lesion_logits(network: nn.Module, grey_N1HW: torch.Tensor) -> list[torch.Tensor]:
    """As :func:`lesion_logits`, of the main output and of the auxiliary ones if there are any."""
    if not hasattr(network, "all_logits"):
        return [lesion_logits(network, grey_N1HW)]
    height, width = grey_N1HW.shape[-2:]
    return [logits[..., :height, :width] for logits in network.all_logits(_prepared(grey_N1HW))]


@torch.inference_mode()
def segment(network: nn.Module, images_NHW: np.ndarray) -> np.ndarray:
    """Masks (N, H, W) uint8, 255 where the lesion is likelier than not, of uint8 images.

    Leaves the network in evaluation mode.
    """
    masks = [np.zeros((0, *images_NHW.shape[1:]), np.uint8)]
    for grey_N1HW in _batches(network, images_NHW):
        lesion = lesion_logits(network, grey_N1HW)[:, 0] > 0
        masks.append(lesion.cpu().numpy().astype(np.uint8) * 255)
    return np.concatenate(masks)


@torch.inference_mode()
def image_features(network: nn.Module, images_NHW: np.ndarray) -> np.ndarray:
    """Deepest encoder features (N, D) float32 of uint8 images, averaged over the image.

    Leaves the network in evaluation mode.

    Raises:
        InputError: the network has no ``encoder`` that gives a list of feature maps.
    """
    features = [
        _deepest(network, _prepared(grey_N1HW)).mean(dim=(2, 3)).float().cpu().numpy()
        for grey_N1HW in _batches(network, images_NHW)
    ]
    return np.concatenate(features)


def save_segmenter(network: nn.Module, path: Path, seen: Mapping[str, Sequence[str]]) -> None:
    """Write the weights as safetensors, whole or not at all, with the real cases they know.

    Args:
        network: the trained segmenter.
        path: file to write.
        seen: how a case was seen (``labels``, ``images`` or ``chosen_on``) → case ids; see
            :mod:`stdiff.evaluation.audit`.
    """
    weights = {
        name: value.detach().cpu().clone(memory_format=torch.contiguous_format)
        for name, value in network.state_dict().items()
    }
    save_tensors(path, weights, {"known": {how: list(seen[how]) for how in seen}})


def load_segmenter(config: SegmenterConfig, path: Path) -> nn.Module:
    """The network of ``config`` with weights written by :func:`save_segmenter`.

    Raises:
        InputError: no such file, damaged, or the weights of another network.
    """
    network = build_segmenter(config)
    try:
        weights = load_tensors(path)
        if not weights:
            raise InputError(
                f"{path}: that training failed; the table beside it says why (`reason`). Delete "
                "both once that is mended, and make them again"
            )
        network.load_state_dict(weights)
    except Damaged as damage:
        raise InputError(
            f"{damage}; delete it and run what makes it again (`stdiff segment`)"
        ) from damage
    except RuntimeError as error:
        raise InputError(
            f"{path}: not the weights of {config.network} with encoder {config.encoder} "
            f"({str(error).splitlines()[0]}); name the segmenter they were trained as"
        ) from error
    return network.eval()


def _deepest(network: nn.Module, x_N1HW: torch.Tensor) -> torch.Tensor:
    """The last feature map (N, D, h, w) of the network's encoder."""
    encoder = getattr(network, "encoder", None)
    maps = encoder(x_N1HW) if callable(encoder) else None
    if not isinstance(maps, list | tuple) or not maps or getattr(maps[-1], "ndim", 0) != 4:
        raise InputError(
            f"{type(network).__name__} has no encoder that gives a list of feature maps, to "
            "compare images by; name a segmenter that has one first in segmentation.segmenters, "
            "e.g. unet_resnet18: {network: Unet}"
        )
    return maps[-1]


def _prepared(grey_N1HW: torch.Tensor) -> torch.Tensor:
    """Grey levels [0, 255] to about zero mean and unit spread, edges repeated to whole strides."""
    height, width = grey_N1HW.shape[-2:]
    pad = (0, -width % _STRIDE_PX, 0, -height % _STRIDE_PX)
    # Means and spreads of ultrasound frames are near a quarter and a fifth of the range.
    return F.pad((grey_N1HW / 255 - 0.25) / 0.2, pad, mode="replicate")


def _batches(network: nn.Module, images_NHW: np.ndarray) -> Iterator[torch.Tensor]:
    network.eval()
    device = next(network.parameters()).device
    for start in range(0, len(images_NHW), _BATCH):
        yield torch.from_numpy(images_NHW[start : start + _BATCH, None]).to(device).float()
