"""Loading a Stable Diffusion 1.x or 2.x model as the start of stage 1."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import (
    AutoencoderKL,
    AutoencoderTiny,
    DPMSolverMultistepScheduler,
    UNet2DConditionModel,
)
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError
from transformers import AutoTokenizer, CLIPTextModel, PreTrainedTokenizerBase

from stdiff.diffusion.parts import ModelFolderError, load_autoencoder, load_part

_PARTS = ("vae", "unet", "text_encoder", "tokenizer", "scheduler")


@dataclass(frozen=True)
class BaseModel:
    """The networks that stage 1 starts from."""

    autoencoder: AutoencoderKL | AutoencoderTiny
    unet: UNet2DConditionModel
    text_encoder: CLIPTextModel
    tokenizer: PreTrainedTokenizerBase
    scheduler: DPMSolverMultistepScheduler

    @property
    def empty_1LD(self) -> torch.Tensor:  # noqa: N802
        """(1, L, D) embedding of the empty caption."""
        ids = self.tokenizer([""], padding="max_length", return_tensors="pt").input_ids
        with torch.no_grad():
            return self.text_encoder(ids).last_hidden_state


def checkpoint_folder(name: str) -> Path:
    """The folder of a checkpoint; nothing is downloaded.

    Args:
        name: a folder, or the hub name of a downloaded model.

    Raises:
        ModelFolderError: neither, or parts are missing.
    """
    folder = Path(name)
    if not folder.is_dir():
        try:
            folder = Path(snapshot_download(name, local_files_only=True))
        except (LocalEntryNotFoundError, HFValidationError, HfHubHTTPError, OSError) as error:
            raise ModelFolderError(
                f"model.checkpoint: {name!r} is neither a folder nor a model of the local hub "
                f"cache; give a folder, or download it with `HF_HUB_OFFLINE=0 hf download {name}`"
            ) from error
    if missing := [part for part in _PARTS if not (folder / part).is_dir()]:
        raise ModelFolderError(
            f"model.checkpoint: {folder} has no {', '.join(missing)}; expected a Stable Diffusion "
            f"1.x or 2.x folder as diffusers saves it, with {', '.join(_PARTS)}"
        )
    return folder


def load_checkpoint(name: str) -> BaseModel:
    """The parts of a checkpoint.

    Raises:
        ModelFolderError: not a Stable Diffusion 1.x or 2.x model, or pickle files only.
    """
    folder = checkpoint_folder(name)
    unet = load_part(UNet2DConditionModel, folder, "unet")
    text_encoder = load_part(CLIPTextModel, folder, "text_encoder")
    reads, writes = unet.config.cross_attention_dim, text_encoder.config.hidden_size
    if unet.config.addition_embed_type or unet.config.in_channels != unet.config.out_channels:
        raise ModelFolderError(
            f"{folder}/unet: unsupported model family (addition_embed_type "
            f"{unet.config.addition_embed_type!r}, in_channels {unet.config.in_channels}, "
            f"out_channels {unet.config.out_channels}); expected Stable Diffusion 1.x or 2.x, not "
            "XL or inpainting"
        )
    if reads != writes:
        raise ModelFolderError(
            f"{folder}: unet has cross_attention_dim {reads}, text_encoder hidden_size {writes}; "
            "they belong to different models"
        )
    return BaseModel(
        autoencoder=load_autoencoder(folder / "vae"),
        unet=unet,
        text_encoder=text_encoder.eval(),
        tokenizer=AutoTokenizer.from_pretrained(folder / "tokenizer", local_files_only=True),
        scheduler=_scheduler(folder / "scheduler"),
    )


def _scheduler(folder: Path) -> DPMSolverMultistepScheduler:
    """DPM-Solver++ over the noise schedule of the checkpoint."""
    file = folder / "scheduler_config.json"
    if not file.is_file():
        raise ModelFolderError(f"{file}: missing; restore the checkpoint")
    trained = json.loads(file.read_text(encoding="utf-8"))
    kept = ("num_train_timesteps", "beta_start", "beta_end", "beta_schedule", "prediction_type")
    return DPMSolverMultistepScheduler(
        **{key: trained[key] for key in kept if key in trained},
        rescale_betas_zero_snr=bool(trained.get("rescale_betas_zero_snr", False)),
        timestep_spacing="trailing",
        steps_offset=1,
        algorithm_type="dpmsolver++",
        solver_order=2,
    )
