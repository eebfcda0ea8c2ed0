"""Segmentation networks of segmentation-models-pytorch behind four functions.

All of them take 8-bit grey images of any size; normalisation and padding stand here and nowhere
else.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import segmentation_models_pytorch as smp
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn import functional as F  # noqa: N812

from stdiff.config_segmentation import SegmenterConfig
from stdiff.files import InputError, written_whole

_STRIDE_PX = 32  # encoders halve the image five times
_BATCH = 32


def build_segmenter(config: SegmenterConfig, seed: int = 0) -> nn.Module:
    """A network with one grey input and one lesion logit, with random weights drawn from ``seed``.

    Raises:
        InputError: encoder unknown, or not to be had with this architecture.
    """
    encoders = smp.encoders.get_encoder_names()
    if config.encoder not in encoders and not config.encoder.startswith("tu-"):
        nearest = difflib.get_close_matches(config.encoder.lower(), encoders, n=3, cutoff=0.0)
        raise InputError(
            f"segmenter encoder {config.encoder!r} is not known; did you mean {', '.join(nearest)}?"
        )
    # torch's initialisers take no generator: the global one is lent, and restored afterwards.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        try:
            return smp.create_model(
                config.architecture,
                encoder_name=config.encoder,
                encoder_weights=None,
                in_channels=1,
                classes=1,
            )
        except (KeyError, ValueError, RuntimeError, TypeError) as error:
            raise InputError(
                f"segmenter {config.architecture} with encoder {config.encoder!r} cannot be built "
                f"({error}); try another encoder, e.g. resnet18"
            ) from error


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
    """
    features = [
        network.encoder(_prepared(grey_N1HW))[-1].mean(dim=(2, 3)).float().cpu().numpy()
        for grey_N1HW in _batches(network, images_NHW)
    ]
    return np.concatenate(features)


def save_segmenter(network: nn.Module, path: Path) -> None:
    """Write the weights as safetensors, whole or not at all."""
    weights = {name: value.detach().cpu().clone() for name, value in network.state_dict().items()}
    with written_whole(path) as aside:
        save_file(weights, aside)


def load_segmenter(config: SegmenterConfig, path: Path) -> nn.Module:
    """The network of ``config`` with weights written by :func:`save_segmenter`.

    Raises:
        InputError: no such file, not safetensors, or the weights of another network.
    """
    network = build_segmenter(config)
    try:
        network.load_state_dict(load_file(path))
    except (OSError, SafetensorError) as error:
        raise InputError(
            f"{path}: not readable as safetensors ({error}); make it with `stdiff segment`"
        ) from error
    except RuntimeError as error:
        raise InputError(
            f"{path}: not the weights of {config.architecture} with encoder {config.encoder} "
            f"({str(error).splitlines()[0]}); name the segmenter they were trained as"
        ) from error
    return network.eval()


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
