"""The model folder: standard diffusers parts with a ``model_index.json``, safetensors only.

Plain diffusers opens it (``StableDiffusionPipeline`` after stage 1,
``StableDiffusionControlNetPipeline`` after stage 2). Beside the parts lie ``stdiff.json`` (image
size, gate, what it was trained on), ``empty_caption.safetensors`` (the embedding that stage 1
knows as "no caption"), ``lora/`` where adapters were trained, a README that says what the model
is not for, and the hashes of all of it.
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

Made by stdiff. It generates synthetic breast-ultrasound images, for research and teaching.
It is not a medical device, and nothing it generates may be used for diagnosis.

`stdiff.json` says what it was trained on. Plain diffusers opens this folder; the gate that parts
foreground from background is applied by `stdiff generate` and `stdiff generate-one` only.
"""
# The stages whose models know masks and captions.
CONDITIONAL_STAGES = ("finetune", "distill")
# What belongs to stage 2 alone.
_OF_STAGE_2 = {"gate", "condition", "text_lora", "unet_lora"}


def save_model(model: DiffusionModel, folder: Path, extra_files: dict[str, Path]) -> None:
    """Write the model folder whole; ``extra_files`` (name → file) are copied into it."""
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
        ModelFolderError: not a folder of ours, a part missing or damaged, or weights as pickle
            files only.
    """
    folder = Path(folder)
    if not (folder / "stdiff.json").is_file():
        found = (
            ", ".join(sorted(p.name for p in folder.iterdir())) if folder.is_dir() else "nothing"
        )
        raise ModelFolderError(
            f"{folder}: not an stdiff model folder (no stdiff.json; found {found or 'nothing'}); "
            "give the output of `stdiff train pretrain` or `stdiff train finetune`"
        )
    check_files(folder)
    about = json.loads((folder / "stdiff.json").read_text(encoding="utf-8"))
    has_controlnet = (folder / "controlnet").is_dir()
    unet = load_part(UNet2DConditionModel, folder, "unet")
    gate_attention(unet)
    empty = folder / "empty_caption.safetensors"
    if not empty.is_file():
        raise ModelFolderError(f"{empty}: is missing; train the model again or restore the file")
    model = DiffusionModel(
        autoencoder=load_autoencoder(folder / "vae"),
        tokenizer=AutoTokenizer.from_pretrained(folder / "tokenizer", local_files_only=True),
        text_encoder=load_part(CLIPTextModel, folder, "text_encoder").eval(),
        unet=unet.eval(),
        scheduler=DPMSolverMultistepScheduler.from_pretrained(folder / "scheduler"),
        empty_1LD=load_file(empty)["empty_1LD"],
        controlnet=load_part(ControlNetModel, folder, "controlnet").eval()
        if has_controlnet
        else None,
        about=about,
    )
    if about.get("stage") in CONDITIONAL_STAGES:
        add_adapters(model, ModelConfig(**about["model"]), seed=0)
        load_adapters(model.unet, model.text_encoder, folder)
    return model


def check_model_matches(model: DiffusionModel, config: Config, folder: Path) -> None:
    """Refuse a stage-1 model that was made with another configuration of its parts.

    Raises:
        ModelFolderError: naming every key that differs, with both values.
    """
    made = {"image.size_px": model.about["size_px"]} | _flat(model.about["model"], "model")
    asked = {"image.size_px": config.image.size_px} | _flat(
        config.model.model_dump(mode="json", exclude=_OF_STAGE_2), "model"
    )
    differing = [
        f"- {key}: the folder has {made.get(key)!r}, the configuration {value!r}"
        for key, value in asked.items()
        if made.get(key) != value
    ]
    if differing:
        raise ModelFolderError(
            f"{folder}: was made with another configuration:\n"
            + "\n".join(differing)
            + "\nTrain that stage again with this configuration, or set the keys to its values."
        )


def _flat(values: dict[str, Any], prefix: str) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        name = f"{prefix}.{key}"
        flat |= _flat(value, name) if isinstance(value, dict) else {name: value}
    return flat
