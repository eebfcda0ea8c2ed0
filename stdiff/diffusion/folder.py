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

from diffusers import (
    ControlNetModel,
    DPMSolverMultistepScheduler,
    StableDiffusionControlNetPipeline,
    StableDiffusionPipeline,
    UNet2DConditionModel,
)
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer, CLIPTextModel

from stdiff.config.generator import ModelConfig
from stdiff.config.run import Config
from stdiff.diffusion.adapters import load_adapters, save_adapters, without_adapters
from stdiff.diffusion.decoupling import gate_attention
from stdiff.diffusion.model import DiffusionModel, add_adapters
from stdiff.diffusion.parts import (
    ModelFolderError,
    check_files,
    load_autoencoder,
    load_part,
    quiet_diffusers,
)
from stdiff.runtime.files import atomic_write, write_sums, write_text

_README = """# An ST-Diff model

Trained by stdiff. It generates synthetic breast-ultrasound images for research and teaching.
It is not a medical device, and its images must not be used for diagnosis.

`stdiff.json` lists its training cases. Plain diffusers loads this folder, but only
`stdiff generate` and `stdiff generate-one` apply the gate that decouples foreground and background.
"""
# Stages whose models are conditioned on masks and captions.
CONDITIONAL_STAGES = ("finetune", "distill")
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
        write_text(
            temporary / "stdiff.json", json.dumps(model.about, indent=1, sort_keys=True) + "\n"
        )
        write_text(temporary / "README.md", _README)
        for name, file in extra_files.items():
            (temporary / name).write_bytes(Path(file).read_bytes())
        write_sums(temporary)


def load_model(folder: Path) -> DiffusionModel:
    """Read a model folder.

    Raises:
        ModelFolderError: not a model folder, a part is missing or damaged, or weights are pickle
            files.
    """
    folder = Path(folder)
    if not (folder / "stdiff.json").is_file():
        found = sorted(p.name for p in folder.iterdir()) if folder.is_dir() else []
        raise ModelFolderError(
            f"{folder}: not an stdiff model folder (no stdiff.json; found "
            f"{', '.join(found) or 'nothing'}); "
            "give the output of `stdiff train pretrain` or `stdiff train finetune`"
        )
    check_files(folder)
    about = json.loads((folder / "stdiff.json").read_text(encoding="utf-8"))
    controlnet = None
    if (folder / "controlnet").is_dir():
        controlnet = load_part(ControlNetModel, folder, "controlnet").eval()
    unet = load_part(UNet2DConditionModel, folder, "unet")
    gate_attention(unet)
    empty = folder / "empty_caption.safetensors"
    if not empty.is_file():
        raise ModelFolderError(f"{empty}: missing; restore it or train the model again")
    model = DiffusionModel(
        autoencoder=load_autoencoder(folder / "vae"),
        tokenizer=AutoTokenizer.from_pretrained(folder / "tokenizer", local_files_only=True),
        text_encoder=load_part(CLIPTextModel, folder, "text_encoder").eval(),
        unet=unet.eval(),
        scheduler=DPMSolverMultistepScheduler.from_pretrained(folder / "scheduler"),
        empty_1LD=load_file(empty)["empty_1LD"],
        controlnet=controlnet,
        about=about,
    )
    if about.get("stage") in CONDITIONAL_STAGES:
        add_adapters(model, ModelConfig(**about["model"]), seed=0)
        load_adapters(model.unet, model.text_encoder, folder)
    return model


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
