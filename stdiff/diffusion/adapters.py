"""Low-rank adapters (LoRA) of the caption encoder and of the denoiser's cross-attention.

They stand in the model folder as ``lora/pytorch_lora_weights.safetensors``, which diffusers'
``load_lora_weights`` reads; the parts beside it are saved without them.
"""

from __future__ import annotations

from pathlib import Path

import peft
import torch
from diffusers import StableDiffusionPipeline
from torch import nn

from stdiff.config.generator import AdapterConfig
from stdiff.diffusion.parts import ModelFolderError

_FOLDER = "lora"
_TEXT_ENCODER = ["q_proj", "k_proj", "v_proj", "out_proj"]
_CROSS_ATTENTION = r".*\.attn2\.(to_q|to_k|to_v|to_out\.0)"


def add_text_adapters(text_encoder: nn.Module, config: AdapterConfig, seed: int) -> None:
    """Adapters on the attention of a CLIP text encoder; they change nothing until trained."""
    _add(text_encoder, config, _TEXT_ENCODER, seed)


def add_unet_adapters(unet: nn.Module, config: AdapterConfig, seed: int) -> None:
    """Adapters on the cross-attention of a denoiser; they change nothing until trained."""
    _add(unet, config, _CROSS_ATTENTION, seed)


def has_adapters(network: nn.Module) -> bool:
    """Whether a network was given any."""
    return getattr(network, "peft_config", None) is not None


def train_adapters_only(network: nn.Module) -> None:
    """Freeze all but the adapters."""
    for name, weight in network.named_parameters():
        weight.requires_grad_("lora_" in name)


def without_adapters(network: nn.Module) -> nn.Module:
    """The network as it was before it was given adapters; itself if it has none."""
    if not has_adapters(network):
        return network
    # Classes of diffusers are built by `from_config`, those of transformers by themselves.
    plain = getattr(type(network), "from_config", type(network))(network.config)
    weights = {
        name.replace(".base_layer.", "."): value
        for name, value in network.state_dict().items()
        if "lora_" not in name
    }
    plain.load_state_dict(weights)
    return plain.to(next(network.parameters()).device)


def save_adapters(unet: nn.Module, text_encoder: nn.Module, folder: Path) -> None:
    """Write the adapters of both, if any, into a model folder."""
    networks = {"unet": unet, "text_encoder": text_encoder}
    given = {name: network for name, network in networks.items() if has_adapters(network)}
    if not given:
        return
    layers = {f"{n}_lora_layers": peft.get_peft_model_state_dict(m) for n, m in given.items()}
    metadata = {
        f"{name}_lora_adapter_metadata": _metadata(network) for name, network in given.items()
    }
    StableDiffusionPipeline.save_lora_weights(
        folder / _FOLDER, safe_serialization=True, **layers, **metadata
    )


def load_adapters(unet: nn.Module, text_encoder: nn.Module, folder: Path) -> None:
    """Read what :func:`save_adapters` wrote into networks that were given adapters.

    Raises:
        ModelFolderError: the file is missing, or is for other adapters.
    """
    networks = {"unet": unet, "text_encoder": text_encoder}
    given = {name: network for name, network in networks.items() if has_adapters(network)}
    if not given:
        return
    file = folder / _FOLDER / "pytorch_lora_weights.safetensors"
    if not file.is_file():
        raise ModelFolderError(f"{file}: is missing; train the model again or restore the file")
    weights, _ = StableDiffusionPipeline.lora_state_dict(file.parent, local_files_only=True)
    for name, network in given.items():
        mine = {
            key.removeprefix(f"{name}."): value
            for key, value in weights.items()
            if key.startswith(f"{name}.")
        }
        result = peft.set_peft_model_state_dict(network, mine)
        expected = set(peft.get_peft_model_state_dict(network))
        if result.unexpected_keys or len(mine) != len(expected):
            raise ModelFolderError(
                f"{file}: holds {len(mine)} weights for {name}, which has {len(expected)}; it "
                "belongs to another model"
            )


def _add(network: nn.Module, config: AdapterConfig, where: list[str] | str, seed: int) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network.add_adapter(
            peft.LoraConfig(
                r=config.rank, lora_alpha=config.alpha, target_modules=where, lora_dropout=0.0
            )
        )


def _metadata(network: nn.Module) -> dict[str, object]:
    (config,) = network.peft_config.values()
    return config.to_dict()
