"""Low-rank adapters (LoRA) of the caption encoder and of the U-Net's cross-attention.

The model folder holds them as ``lora/pytorch_lora_weights.safetensors``, which diffusers'
``load_lora_weights`` reads; the other parts are saved without adapters.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import peft
import torch
from diffusers import StableDiffusionPipeline
from torch import nn

from stdiff.config.generator import AdapterConfig
from stdiff.diffusion.part_checks import ModelFolderError, few
from stdiff.runtime.tensor_files import not_finite

_FOLDER = "lora"
_TEXT_ENCODER = ["q_proj", "k_proj", "v_proj", "out_proj"]
_CROSS_ATTENTION = r".*\.attn2\.(to_q|to_k|to_v|to_out\.0)"


def add_text_adapters(text_encoder: nn.Module, config: AdapterConfig, seed: int) -> None:
    """Add adapters to the attention of a CLIP text encoder; untrained, they change nothing."""
    _add(text_encoder, config, _TEXT_ENCODER, seed)


def add_unet_adapters(unet: nn.Module, config: AdapterConfig, seed: int) -> None:
    """Add adapters to the cross-attention of a U-Net; untrained, they change nothing."""
    _add(unet, config, _CROSS_ATTENTION, seed)


def has_adapters(network: nn.Module) -> bool:
    """Whether a network has adapters."""
    return getattr(network, "peft_config", None) is not None


def train_adapters_only(network: nn.Module) -> None:
    """Freeze all but the adapters."""
    for name, weight in network.named_parameters():
        weight.requires_grad_("lora_" in name)


def without_adapters(network: nn.Module) -> nn.Module:
    """A copy of the network without its adapters; the network itself if it has none."""
    if not has_adapters(network):
        return network
    # diffusers classes are built by `from_config`, transformers classes by their constructor.
    plain = getattr(type(network), "from_config", type(network))(network.config)
    weights = {
        name.replace(".base_layer.", "."): value
        for name, value in network.state_dict().items()
        if "lora_" not in name
    }
    plain.load_state_dict(weights)
    return plain.to(next(network.parameters()).device)


def save_adapters(unet: nn.Module, text_encoder: nn.Module, folder: Path) -> None:
    """Write the adapters of both networks, if any, into a model folder."""
    if not (given := _with_adapters(unet, text_encoder)):
        return
    arguments: dict[str, Any] = {}
    for name, network in given.items():
        (config,) = network.peft_config.values()
        arguments[f"{name}_lora_layers"] = peft.get_peft_model_state_dict(network)
        arguments[f"{name}_lora_adapter_metadata"] = config.to_dict()
    StableDiffusionPipeline.save_lora_weights(
        folder / _FOLDER, safe_serialization=True, **arguments
    )


def load_adapters(unet: nn.Module, text_encoder: nn.Module, folder: Path) -> None:
    """Load what :func:`save_adapters` wrote into networks that have adapters.

    Raises:
        ModelFolderError: the file is missing, or belongs to other adapters.
    """
    if not (given := _with_adapters(unet, text_encoder)):
        return
    file = folder / _FOLDER / "pytorch_lora_weights.safetensors"
    if not file.is_file():
        raise ModelFolderError(f"{file}: missing; restore it or train the model again")
    weights, _ = StableDiffusionPipeline.lora_state_dict(file.parent, local_files_only=True)
    for name, network in given.items():
        mine = {
            key.removeprefix(f"{name}."): value
            for key, value in weights.items()
            if key.startswith(f"{name}.")
        }
        expected = peft.get_peft_model_state_dict(network)
        found = {key: tuple(value.shape) for key, value in mine.items()}
        if differing := set(found.items()) ^ {(k, tuple(v.shape)) for k, v in expected.items()}:
            raise ModelFolderError(
                f"{file}: has {len(mine)} weights for {name}, expected {len(expected)}; they "
                f"differ in {few(sorted({key for key, _ in differing}))}: it belongs to another "
                "model"
            )
        if names := sorted(not_finite(mine)):
            raise ModelFolderError(
                f"{file}: has NaN or infinite values in {few(names)}; train the model again"
            )
        peft.set_peft_model_state_dict(network, mine)


def _with_adapters(unet: nn.Module, text_encoder: nn.Module) -> dict[str, nn.Module]:
    networks = {"unet": unet, "text_encoder": text_encoder}
    return {name: network for name, network in networks.items() if has_adapters(network)}


def _add(network: nn.Module, config: AdapterConfig, where: list[str] | str, seed: int) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network.add_adapter(
            peft.LoraConfig(
                r=config.rank, lora_alpha=config.alpha, target_modules=where, lora_dropout=0.0
            )
        )
