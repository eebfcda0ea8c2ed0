"""What a model folder may hold: no foreign class or code, all weights, and parts that fit."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from diffusers import ControlNetModel, UNet2DConditionModel
from transformers import CLIPTextModel, PreTrainedTokenizerBase

from stdiff.diffusion.about import ModelFolderError, read_part_json
from stdiff.runtime.files import SUMS, differing_files
from stdiff.runtime.tensor_files import not_finite

_LISTED = 5


def check_files(folder: Path) -> None:
    """Check that nothing leads out of a model folder, and its files against recorded hashes.

    Raises:
        ModelFolderError: a link or a list of weights leads out of it; or files are damaged, changed
            or missing.
    """
    folder = Path(folder)
    root = folder.resolve()
    # In the hub's cache, a snapshot links to the files beside it.
    home = root.parents[1] if root.parent.name == "snapshots" else root
    for path in sorted(folder.rglob("*")):
        if path.is_symlink() and not path.resolve().is_relative_to(home):
            raise ModelFolderError(
                f"{path}: links to {path.resolve()}, outside of the model folder; copy that file "
                "here instead"
            )
        if path.name.endswith(".index.json"):
            files = read_part_json(path).get("weight_map") or {}
            for name in sorted(set(files.values())) if isinstance(files, dict) else [files]:
                if not isinstance(name, str) or Path(name).name != name:
                    raise ModelFolderError(
                        f"{path}: names {name!r}, expected files of its own folder; get the model "
                        "again from where it comes"
                    )
    if differing := differing_files(folder):
        raise ModelFolderError(
            f"{folder}: {', '.join(differing)} is damaged or not the file that was written; copy "
            "it again, or delete the folder and rerun the step that made it. If you changed the "
            f"file on purpose, delete {SUMS}."
        )


def class_of_part(file: Path, key: str, expected: tuple[str, ...]) -> str:
    """The class that a part's configuration names.

    Args:
        file: ``config.json`` or the like.
        key: ``_class_name``, ``architectures`` or ``tokenizer_class``.
        expected: allowed classes.

    Raises:
        ModelFolderError: another class, or code that comes with the model.
    """
    config = read_part_json(file)
    if "auto_map" in config:
        raise ModelFolderError(
            f"{file}: asks to run code of its own (auto_map: {config['auto_map']}), which stdiff "
            f"never does; expected one of {', '.join(expected)} without auto_map"
        )
    named = config.get(key)
    found = named[0] if isinstance(named, list) and len(named) == 1 else named
    if found not in expected:
        raise ModelFolderError(
            f"{file}: {key} is {named!r}, expected {' or '.join(expected)}; give a Stable "
            "Diffusion 1.x or 2.x model or one that stdiff trained"
        )
    return found


def check_weights(path: Path, network: torch.nn.Module, report: Mapping[str, Any]) -> None:
    """Check that a network was loaded completely and is finite.

    Args:
        path: folder of the part.
        network: as loaded.
        report: from ``from_pretrained(..., output_loading_info=True)``.

    Raises:
        ModelFolderError: names the weights that are missing, unexpected, of another shape, NaN or
            infinite.
    """
    incomplete = {
        "lacks": report["missing_keys"],
        "has unexpected": report["unexpected_keys"],
        "has weights of another shape:": report["mismatched_keys"],
    }
    for what, keys in incomplete.items():
        # transformers adds the two shapes to the name.
        names = [key if isinstance(key, str) else key[0] for key in keys]
        _refuse(path, what, names)
    _refuse(path, "has NaN or infinite values in", not_finite(network.state_dict()))


def _refuse(path: Path, what: str, names: list[str]) -> None:
    if names:
        raise ModelFolderError(
            f"{path}: {what} {few(sorted(names))}; get the file again from where it comes, or "
            "train the model again"
        )


def check_fit(
    folder: Path,
    *,
    unet: UNet2DConditionModel,
    autoencoder: torch.nn.Module,
    text_encoder: CLIPTextModel,
    tokenizer: PreTrainedTokenizerBase,
    controlnet: ControlNetModel | None = None,
    empty_1LD: torch.Tensor | None = None,  # noqa: N803
) -> None:
    """Check that the parts of a model belong together.

    Raises:
        ModelFolderError: names the first pair that does not fit, with both values.
    """
    latents = autoencoder.config.latent_channels
    width, tokens = text_encoder.config.hidden_size, tokenizer.model_max_length
    pairs = [
        ("unet has in_channels", unet.config.in_channels, "vae latent_channels", latents),
        ("unet has out_channels", unet.config.out_channels, "vae latent_channels", latents),
        ("unet has cross_attention_dim", unet.config.cross_attention_dim)
        + ("text_encoder hidden_size", width),
    ]
    if controlnet is not None:
        pairs += [
            (f"controlnet has {key}", controlnet.config[key], f"unet {key}", unet.config[key])
            for key in ("in_channels", "cross_attention_dim", "block_out_channels")
        ]
    if empty_1LD is not None:
        shape = torch.Size((1, tokens, width))
        pairs.append(("empty caption has shape", empty_1LD.shape, "tokenizer and encoder", shape))
    for name, value, other, expected in pairs:
        # As JSON, in which a tuple and a list are alike.
        if json.dumps(value) != json.dumps(expected):
            raise ModelFolderError(
                f"{folder}: {name} {value}, {other} {expected}; they belong to different models"
            )
    for name, value, other, most in (
        ("words", len(tokenizer), "vocab_size", text_encoder.config.vocab_size),
        ("tokens", tokens, "max_position_embeddings", text_encoder.config.max_position_embeddings),
    ):
        if value > most:
            raise ModelFolderError(
                f"{folder}: tokenizer has {value} {name}, but text_encoder {other} is {most}; they "
                "belong to different models"
            )


def few(names: list[str]) -> str:
    """The first names, and how many more there are."""
    more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return ", ".join(names[:_LISTED]) + more
