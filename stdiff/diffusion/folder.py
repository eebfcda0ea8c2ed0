"""The model folder: standard diffusers components with a ``model_index.json``, safetensors only.

diffusers loads it as ``StableDiffusionPipeline`` (stage 1) or ``StableDiffusionControlNetPipeline``
(later stages). It also holds ``stdiff.json`` (image size, model configuration, training cases),
``empty_caption.safetensors`` (the embedding of "no caption" in stage 1), ``lora/`` with trained
adapters, a README with the intended use, and hashes of all files.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from diffusers import (
    ControlNetModel,
    StableDiffusionControlNetPipeline,
    StableDiffusionPipeline,
    UNet2DConditionModel,
)
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from transformers import CLIPTextModel

from stdiff.config.generator import ModelConfig
from stdiff.config.run import Config
from stdiff.diffusion.about import (
    ABOUT,
    CONDITIONAL_STAGES,
    ModelFolderError,
    read_about,
    read_part_json,
)
from stdiff.diffusion.adapters import load_adapters, save_adapters, without_adapters
from stdiff.diffusion.decoupling import gate_attention
from stdiff.diffusion.model import DiffusionModel, add_adapters
from stdiff.diffusion.part_checks import (
    check_files,
    check_fit,
    class_of_part,
)
from stdiff.diffusion.parts import (
    load_autoencoder,
    load_part,
    load_scheduler,
    load_tokenizer,
    quiet_diffusers,
)
from stdiff.runtime.files import atomic_write, write_sums, write_text

_README = """# An ST-Diff model

Trained by stdiff. It generates synthetic breast-ultrasound images for research and teaching.
It is not a medical device, and its images must not be used for diagnosis.

`stdiff.json` lists its training cases. Plain diffusers loads this folder, but only
`stdiff generate` and `stdiff generate-one` apply the gate that decouples foreground and background.
"""
# Sections that stage 1 does not depend on.
_OF_STAGE_2 = {"gate", "condition", "text_lora", "unet_lora"}


def save_model(model: DiffusionModel, folder: Path, extra_files: dict[str, Path]) -> None:
    """Write the model folder atomically; ``extra_files`` (name → file) are copied into it."""
    parts: dict[str, Any] = {
        "vae": model.autoencoder,
        "text_encoder": without_adapters(model.text_encoder),
        "tokenizer": model.tokenizer,
        "unet": without_adapters(model.unet),
        "scheduler": model.scheduler,
        "safety_checker": None,
        "feature_extractor": None,
        "requires_safety_checker": False,
    }
    with quiet_diffusers():
        if model.controlnet is None:
            pipeline = StableDiffusionPipeline(**parts)
        else:
            pipeline = StableDiffusionControlNetPipeline(controlnet=model.controlnet, **parts)
    with atomic_write(folder) as temporary:
        pipeline.save_pretrained(temporary, safe_serialization=True)
        save_adapters(model.unet, model.text_encoder, temporary)
        save_file({"empty_1LD": model.empty_1LD.cpu()}, temporary / "empty_caption.safetensors")
        write_text(temporary / ABOUT, json.dumps(model.about, indent=1, sort_keys=True) + "\n")
        write_text(temporary / "README.md", _README)
        for name, file in extra_files.items():
            (temporary / name).write_bytes(Path(file).read_bytes())
        write_sums(temporary)


def load_model(folder: Path) -> DiffusionModel:
    """Read a model folder.

    Raises:
        ModelFolderError: not a model folder; a part is missing, damaged, incomplete, of another
            class or does not fit the others; or weights are pickle files.
    """
    folder = Path(folder)
    about = read_about(folder)
    check_files(folder)
    config = _model_config(about, folder / ABOUT)
    parts = {
        "autoencoder": load_autoencoder(folder / "vae"),
        "tokenizer": load_tokenizer(folder / "tokenizer"),
        "text_encoder": load_part(CLIPTextModel, folder, "text_encoder"),
        "unet": load_part(UNet2DConditionModel, folder, "unet"),
        "controlnet": load_part(ControlNetModel, folder, "controlnet")
        if (folder / "controlnet").is_dir()
        else None,
        "empty_1LD": _empty_caption(folder / "empty_caption.safetensors"),
    }
    check_fit(folder, **parts)
    gate_attention(parts["unet"])
    schedule = folder / "scheduler" / "scheduler_config.json"
    class_of_part(schedule, "_class_name", ("DPMSolverMultistepScheduler",))
    scheduler = load_scheduler(schedule, read_part_json(schedule))
    model = DiffusionModel(**parts, scheduler=scheduler, about=about)
    if about.get("stage") in CONDITIONAL_STAGES:
        add_adapters(model, config, seed=0)
        load_adapters(model.unet, model.text_encoder, folder)
    return model


def _model_config(about: dict[str, Any], file: Path) -> ModelConfig:
    """The model configuration in the content of ``stdiff.json``."""
    try:
        return ModelConfig.model_validate(about["model"])
    except (KeyError, ValidationError) as error:
        raise ModelFolderError(
            f"{file}: not what this version of stdiff writes ({' '.join(str(error).split())}); "
            "restore it or train the model again"
        ) from error


def _empty_caption(file: Path) -> torch.Tensor:
    """(1, L, D) embedding of the empty caption."""
    try:
        empty_1LD = load_file(file)["empty_1LD"]
    except (OSError, SafetensorError, KeyError) as error:
        raise ModelFolderError(
            f"{file}: missing or damaged ({error}); restore it or train the model again"
        ) from error
    if not torch.isfinite(empty_1LD).all():
        raise ModelFolderError(f"{file}: has NaN or infinite values; train the model again")
    return empty_1LD.float()


def check_model_matches(model: DiffusionModel, config: Config, folder: Path) -> None:
    """Check that a stage-1 model was trained with the configuration's image size and networks.

    Raises:
        ModelFolderError: lists every key that differs, with both values.
    """
    trained = {"image.size_px": model.about["size_px"]} | _flat(model.about["model"], "model")
    configured = {"image.size_px": config.image.size_px} | _flat(
        config.model.model_dump(mode="json", exclude=_OF_STAGE_2), "model"
    )
    differing = [
        f"- {key}: the folder has {trained.get(key)!r}, the configuration {value!r}"
        for key, value in configured.items()
        if trained.get(key) != value
    ]
    if differing:
        raise ModelFolderError(
            f"{folder}: was trained with another configuration:\n"
            + "\n".join(differing)
            + "\nTrain stage 1 again with this configuration, or set the keys to its values."
        )


def _flat(values: dict[str, Any], prefix: str) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        name = f"{prefix}.{key}"
        flat |= _flat(value, name) if isinstance(value, dict) else {name: value}
    return flat
