"""Loading a Stable Diffusion 1.x or 2.x model as the start of stage 1."""

from __future__ import annotations

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
from transformers import CLIPTextModel, PreTrainedTokenizerBase

from stdiff.diffusion.about import ModelFolderError, read_part_json
from stdiff.diffusion.part_checks import (
    check_files,
    check_fit,
)
from stdiff.diffusion.parts import load_autoencoder, load_part, load_scheduler, load_tokenizer

# Settings of U-Nets that take more than latents, time and text.
_OTHER_INPUTS = ("addition_embed_type", "class_embed_type", "encoder_hid_dim_type")
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
        ModelFolderError: not a Stable Diffusion 1.x or 2.x model, parts that are incomplete or do
            not fit, or pickle files only.
    """
    folder = checkpoint_folder(name)
    check_files(folder)
    unet = load_part(UNet2DConditionModel, folder, "unet")
    needs = {key: unet.config[key] for key in _OTHER_INPUTS if unet.config[key] is not None}
    if needs or unet.config.in_channels != unet.config.out_channels:
        raise ModelFolderError(
            f"{folder}/unet: unsupported model family ("
            + "".join(f"{key} {value!r}, " for key, value in needs.items())
            + f"in_channels {unet.config.in_channels}, "
            f"out_channels {unet.config.out_channels}); expected Stable Diffusion 1.x or 2.x, not "
            "XL or inpainting"
        )
    parts = {
        "autoencoder": load_autoencoder(folder / "vae"),
        "unet": unet,
        "text_encoder": load_part(CLIPTextModel, folder, "text_encoder"),
        "tokenizer": load_tokenizer(folder / "tokenizer"),
    }
    check_fit(folder, **parts)
    return BaseModel(**parts, scheduler=_scheduler(folder / "scheduler"))


def _scheduler(folder: Path) -> DPMSolverMultistepScheduler:
    """DPM-Solver++ over the noise schedule of the checkpoint."""
    file = folder / "scheduler_config.json"
    trained = read_part_json(file)
    kept = ("num_train_timesteps", "beta_start", "beta_end", "beta_schedule", "prediction_type")
    predicts = trained.get("prediction_type", "epsilon")
    if "beta_schedule" not in trained or predicts not in ("epsilon", "v_prediction"):
        raise ModelFolderError(
            f"{file}: {trained.get('_class_name')} with prediction_type {predicts!r} and "
            f"beta_schedule {trained.get('beta_schedule')!r}; expected the noise schedule of "
            "Stable Diffusion 1.x or 2.x"
        )
    return load_scheduler(
        file,
        {key: trained[key] for key in (*kept, "trained_betas") if trained.get(key) is not None}
        | {"rescale_betas_zero_snr": bool(trained.get("rescale_betas_zero_snr", False))}
        | {"timestep_spacing": "trailing", "steps_offset": 1}
        | {"algorithm_type": "dpmsolver++", "solver_order": 2},
    )
