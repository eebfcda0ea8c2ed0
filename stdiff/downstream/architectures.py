"""Segmentation architectures by name: one grey input, one lesion logit per pixel."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

import segmentation_models_pytorch as smp
import torch
from torch import nn

from stdiff.config.downstream import SMP_NETWORKS, SegmenterConfig
from stdiff.downstream.cmunet import CMUNet
from stdiff.downstream.mgcc import MGCC
from stdiff.runtime.errors import InputError, nearest

_OURS: dict[str, Callable[..., nn.Module]] = {"CMUNet": CMUNet, "MGCC": MGCC}
_LEVELS: dict[str, Any] = {"channels": (16, 32, 64, 128, 256), "strides": (2, 2, 2, 2)}
# Default arguments of MONAI's networks; the configured `options` override them.
_MONAI: dict[str, dict[str, Any]] = {
    "UNet": {"in_channels": 1, "out_channels": 1, "num_res_units": 2, **_LEVELS},
    "BasicUNet": {"in_channels": 1, "out_channels": 1},
    "AttentionUnet": {"in_channels": 1, "out_channels": 1, **_LEVELS},
    "SwinUNETR": {"in_channels": 1, "out_channels": 1, "feature_size": 24},
    "DynUNet": {
        **{"in_channels": 1, "out_channels": 1, "kernel_size": [3] * 5},
        **{"strides": [1, 2, 2, 2, 2], "upsample_kernel_size": [2] * 4},
    },
}
_TEST_SHAPE = (2, 1, 64, 64)
# Measured: a training step of Unet with ResNet-18 takes 0.7 times as long on CPUs.
_MEMORY_FORMAT = torch.channels_last


def build_network(config: SegmenterConfig) -> nn.Module:
    """The configured network with random weights; it takes image sides that are multiples of 32.

    Raises:
        InputError: encoder or options do not fit; or the user's own module or factory is missing,
            fails, or returns another shape.
    """
    name = config.network
    if ":" in name:
        return _custom(name, config.options)
    if name in SMP_NETWORKS:
        _check_encoder(config.encoder)
    try:
        if name in SMP_NETWORKS:
            fixed = {"encoder_weights": None, "in_channels": 1, "classes": 1}
            network = smp.create_model(name, config.encoder, **fixed, **config.options)
            return network.to(memory_format=_MEMORY_FORMAT)
        if name in _OURS:
            return _OURS[name](**config.options).to(memory_format=_MEMORY_FORMAT)
        return _monai(name.removeprefix("monai."), config.options)
    except Exception as error:  # the libraries raise anything for what does not fit
        reason = " ".join(str(error).split()) or type(error).__name__
        encoder = f" with encoder {config.encoder!r}" if name in SMP_NETWORKS else ""
        given = f" and options {config.options}" if config.options else ""
        other = "try another encoder, e.g. resnet18, or " if encoder else ""
        raise InputError(
            f"segmenter {name}{encoder}{given} cannot be built ({reason}); {other}remove options"
        ) from error


def _check_encoder(encoder: str) -> None:
    encoders = smp.encoders.get_encoder_names()
    if encoder not in encoders and not encoder.startswith("tu-"):
        near = nearest(encoder, encoders, count=3)
        raise InputError(
            f"segmenter encoder {encoder!r} is not known; did you mean {', '.join(near)}?"
        )


def _monai(name: str, options: dict[str, Any]) -> nn.Module:
    from monai.networks import nets  # slow to import, and rarely needed

    return getattr(nets, name)(spatial_dims=2, **_MONAI[name] | options)


def _custom(name: str, options: dict[str, Any]) -> nn.Module:
    """The network that the user's `module:factory` returns, tried on a batch."""
    module_name, _, factory_name = name.partition(":")
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        raise InputError(
            f"segmenter {name!r}: module {module_name} cannot be imported ({error}); install its "
            "package or put its folder on PYTHONPATH"
        ) from error
    except Exception as error:  # user code may raise anything
        raise InputError(
            f"segmenter {name!r}: importing {module_name} fails with {type(error).__name__}: "
            f"{error}; fix that module"
        ) from error
    factory = getattr(module, factory_name, None)
    if not callable(factory):
        known = [n for n in vars(module) if callable(getattr(module, n)) and n[0] != "_"]
        near = nearest(factory_name, known, count=3)
        raise InputError(
            f"segmenter {name!r}: {module_name} has no function {factory_name!r}; "
            + (f"did you mean {', '.join(near)}?" if near else "it has no functions")
        )
    try:
        network = factory(**options)
        found = _output_shape(network)
    except Exception as error:  # user code may raise anything
        raise InputError(
            f"segmenter {name!r}: fails with {type(error).__name__}: {error}; called with options "
            f"{options}, it must return a torch.nn.Module for grey images {_TEST_SHAPE}"
        ) from error
    if found != _TEST_SHAPE:
        raise InputError(
            f"segmenter {name!r}: returns {found} for grey images {_TEST_SHAPE}; expected one "
            f"lesion logit per pixel, {_TEST_SHAPE}"
        )
    return network


@torch.no_grad()
def _output_shape(network: Any) -> tuple[int, ...] | str:
    """Shape of the output for a test batch, or the type of what is not a network or tensor."""
    if not isinstance(network, nn.Module):
        return f"a {type(network).__name__}"
    training = network.training
    output = network.eval()(torch.zeros(_TEST_SHAPE))
    network.train(training)
    return tuple(output.shape) if isinstance(output, torch.Tensor) else type(output).__name__
