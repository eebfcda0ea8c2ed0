"""The model folder: standard diffusers parts with a ``model_index.json``, safetensors only.

Plain diffusers opens it (``StableDiffusionPipeline`` after stage 1,
``StableDiffusionControlNetPipeline`` after stage 2). Beside the parts lie ``stdiff.json`` (image
size, gate, what it was trained on), ``empty_caption.safetensors`` (the embedding that stage 1
knows as "no caption") and a README that says what the model is not for.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderTiny,
    ControlNetModel,
    DPMSolverMultistepScheduler,
    StableDiffusionControlNetPipeline,
    StableDiffusionPipeline,
    UNet2DConditionModel,
)
from diffusers.utils import logging as diffusers_logging
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from transformers import CLIPTextModel, PreTrainedTokenizerFast

from stdiff.config import Config
from stdiff.config_generator import ConditionConfig, GateConfig
from stdiff.diffusion.autoencoder import PATCH_PX
from stdiff.diffusion.decoupling import gate_attention
from stdiff.diffusion.denoiser import build_scheduler, build_unet
from stdiff.diffusion.text import build_text_encoder, build_tokenizer, tokenize
from stdiff.files import InputError, write_text, written_whole
from stdiff.randomness import integer_seed

_README = """# An ST-Diff model

Made by stdiff. It generates synthetic breast-ultrasound images, for research and teaching.
It is not a medical device, and nothing it generates may be used for diagnosis.

`stdiff.json` says what it was trained on. Plain diffusers opens this folder; the gate that parts
foreground from background is applied by `stdiff generate` and `stdiff generate-one` only.
"""


class ModelFolderError(InputError):
    """A folder is not a model that can be used here."""


@dataclass
class DiffusionModel:
    """The parts of an ST-Diff model; ``controlnet`` is None after stage 1."""

    autoencoder: AutoencoderTiny
    tokenizer: PreTrainedTokenizerFast
    text_encoder: CLIPTextModel
    unet: UNet2DConditionModel
    scheduler: DPMSolverMultistepScheduler
    empty_1LD: torch.Tensor
    controlnet: ControlNetModel | None
    about: dict[str, Any]

    @property
    def size_px(self) -> int:
        """Side of the images."""
        return self.about["size_px"]

    @property
    def gate(self) -> GateConfig:
        """The gate it was trained with."""
        return GateConfig(**self.about["model"]["gate"])

    @property
    def condition(self) -> ConditionConfig:
        """What it is told of a lesion."""
        return ConditionConfig(**self.about["model"]["condition"])

    @property
    def device(self) -> torch.device:
        """Where its parts are."""
        return self.unet.device

    def to(self, device: torch.device) -> DiffusionModel:
        """Move all its parts, in place."""
        for part in (self.autoencoder, self.text_encoder, self.unet, self.controlnet):
            if part is not None:
                part.to(device)
        self.empty_1LD = self.empty_1LD.to(device)
        return self

    def embed(self, captions: list[str]) -> torch.Tensor:
        """(B, L, D) caption embeddings; the empty caption's is the one of stage 1."""
        distinct = sorted(set(captions))
        ids = tokenize(self.tokenizer, distinct).to(self.device)
        embedded = self.text_encoder(ids).last_hidden_state
        rows = {caption: embedded[i] for i, caption in enumerate(distinct)} | {
            "": self.empty_1LD[0]
        }
        return torch.stack([rows[caption] for caption in captions])


def new_model(config: Config, autoencoder: AutoencoderTiny) -> DiffusionModel:
    """An untrained stage-1 model around a trained autoencoder."""
    tokenizer = build_tokenizer(config.model.text)
    text_seed = integer_seed(config.seed, "text encoder weights")
    text_encoder = build_text_encoder(config.model.text, tokenizer, text_seed).eval()
    unet = build_unet(
        config.model, config.image.size_px // PATCH_PX, integer_seed(config.seed, "unet weights")
    )
    gate_attention(unet)
    with torch.no_grad():
        empty_1LD = text_encoder(tokenize(tokenizer, [""])).last_hidden_state
    about = {"size_px": config.image.size_px, "model": config.model.model_dump(mode="json")}
    return DiffusionModel(
        autoencoder,
        tokenizer,
        text_encoder,
        unet,
        build_scheduler(config.model.noise),
        empty_1LD,
        None,
        about,
    )


def save_model(model: DiffusionModel, folder: Path, extra_files: dict[str, Path]) -> None:
    """Write the model folder whole; ``extra_files`` (name → file) are copied into it."""
    parts: dict[str, Any] = {
        "vae": model.autoencoder,
        "text_encoder": model.text_encoder,
        "tokenizer": model.tokenizer,
        "unet": model.unet,
        "scheduler": model.scheduler,
        "safety_checker": None,
        "feature_extractor": None,
        "requires_safety_checker": False,
    }
    with _quiet_diffusers():
        if model.controlnet is None:
            pipeline = StableDiffusionPipeline(**parts)
        else:
            pipeline = StableDiffusionControlNetPipeline(controlnet=model.controlnet, **parts)
    with written_whole(folder) as aside:
        pipeline.save_pretrained(aside, safe_serialization=True)
        save_file({"empty_1LD": model.empty_1LD.cpu()}, aside / "empty_caption.safetensors")
        write_text(aside / "stdiff.json", json.dumps(model.about, indent=1, sort_keys=True) + "\n")
        write_text(aside / "README.md", _README)
        for name, file in extra_files.items():
            (aside / name).write_bytes(Path(file).read_bytes())


def load_model(folder: Path) -> DiffusionModel:
    """Read a model folder.

    Raises:
        ModelFolderError: not a folder of ours, a part missing, or weights as pickle files only.
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
    about = json.loads((folder / "stdiff.json").read_text(encoding="utf-8"))
    has_controlnet = (folder / "controlnet").is_dir()
    unet = _part(UNet2DConditionModel, folder, "unet")
    gate_attention(unet)
    empty = folder / "empty_caption.safetensors"
    if not empty.is_file():
        raise ModelFolderError(f"{empty}: is missing; train the model again or restore the file")
    return DiffusionModel(
        autoencoder=_part(AutoencoderTiny, folder, "vae").eval(),
        tokenizer=PreTrainedTokenizerFast.from_pretrained(folder / "tokenizer"),
        text_encoder=_part(CLIPTextModel, folder, "text_encoder").eval(),
        unet=unet.eval(),
        scheduler=DPMSolverMultistepScheduler.from_pretrained(folder / "scheduler"),
        empty_1LD=load_file(empty)["empty_1LD"],
        controlnet=_part(ControlNetModel, folder, "controlnet").eval() if has_controlnet else None,
        about=about,
    )


def check_model_matches(model: DiffusionModel, config: Config, folder: Path) -> None:
    """Refuse a stage-1 model that was made with another configuration of its parts.

    Raises:
        ModelFolderError: naming every key that differs, with both values.
    """
    made = {"image.size_px": model.about["size_px"]} | _flat(model.about["model"], "model")
    asked = {"image.size_px": config.image.size_px} | _flat(
        config.model.model_dump(mode="json", exclude={"gate", "condition"}), "model"
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


def _part(cls: Any, folder: Path, name: str) -> Any:
    """One component, from safetensors or not at all."""
    path = folder / name
    if not list(path.glob("*.safetensors")):
        pickled = sorted(p.name for p in path.glob("*.bin"))
        reason = f"only pickle files ({', '.join(pickled)})" if pickled else "no weights"
        raise ModelFolderError(
            f"{path}: {reason}; expected a *.safetensors file. Convert it with "
            "`save_pretrained(..., safe_serialization=True)`, or train the model again."
        )
    try:
        with _quiet_diffusers():
            return cls.from_pretrained(path, use_safetensors=True, local_files_only=True)
    except (SafetensorError, OSError, ValueError, RuntimeError) as error:
        raise ModelFolderError(
            f"{path}: cannot be loaded ({error}); train the model again or restore the folder"
        ) from error


class _quiet_diffusers:  # noqa: N801 - reads as a verb where it is used
    """Silence advice about the safety checker: these models never had one."""

    def __enter__(self) -> None:
        self.level = diffusers_logging.get_verbosity()
        diffusers_logging.set_verbosity_error()

    def __exit__(self, *_: object) -> None:
        diffusers_logging.set_verbosity(self.level)
