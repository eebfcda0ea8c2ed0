"""The training stages of the generator, from case tables to folders of weights."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
from diffusers import AutoencoderTiny

from stdiff.config.run import Config
from stdiff.config.training import StageConfig
from stdiff.diffusion.autoencoder import build_autoencoder, latent_factor
from stdiff.diffusion.checkpoint import checkpoint_folder, load_checkpoint
from stdiff.diffusion.folder import check_model_matches, load_model, save_model
from stdiff.diffusion.model import DiffusionModel, add_adapters, new_model
from stdiff.diffusion.parts import ModelFolderError, load_autoencoder
from stdiff.diffusion.unet import build_controlnet
from stdiff.runtime.device import compute_device
from stdiff.runtime.files import InputError, atomic_write, sha256_folder, write_sums, write_text
from stdiff.runtime.randomness import integer_seed
from stdiff.table.cases import images_of
from stdiff.table.cohort import Cohort, CohortFiles
from stdiff.table.label_budget import LabelBudget
from stdiff.training import distributed as ranks
from stdiff.training.autoencoder import DecoderStage
from stdiff.training.distill import DistillStage
from stdiff.training.finetune import FinetuneStage
from stdiff.training.identity import identity_of
from stdiff.training.latents import cached_latents
from stdiff.training.loop import train
from stdiff.training.pretrain import PretrainStage
from stdiff.training.progress import Stage
from stdiff.training.validation import Look, Watch, better_generator

_COLUMNS = ("case_id", "image", "mask", "height_px", "width_px", "lesion_count", "caption")


def train_autoencoder(
    config: Config,
    *,
    cohort: CohortFiles,
    out: Path,
    state: Path,
    stop_after_s: float | None = None,
) -> None:
    """Stage 0: fit the patch encoder and train the decoder on all training images.

    That of a checkpoint is taken as it is.
    """
    if config.model.checkpoint:
        if ranks.is_first():
            with atomic_write(out) as temporary:
                load_checkpoint(config.model.checkpoint).autoencoder.save_pretrained(temporary)
                write_sums(temporary)
        return
    rows = _read(cohort, config).training()
    images_NHW = images_of(rows["image"])
    seed = integer_seed(config.seed, "autoencoder weights")
    autoencoder = build_autoencoder(config.model.autoencoder, images_NHW, seed)
    autoencoder.to(compute_device())
    log = _train(
        DecoderStage(autoencoder, images_NHW),
        config.training.autoencoder,
        seed=config.seed,
        purpose="autoencoder",
        state=state,
        identity=identity_of(rows, config.training.autoencoder, config.model.autoencoder),
        stop_after_s=stop_after_s,
    )
    if not ranks.is_first():
        return
    with atomic_write(out) as temporary:
        autoencoder.save_pretrained(temporary, safe_serialization=True)
        shutil.copyfile(log, temporary / "autoencoder.jsonl")
        seen = {"autoencoder_cases": list(rows["case_id"])}
        write_text(temporary / "stdiff.json", json.dumps(seen, indent=1) + "\n")
        write_sums(temporary)


def train_pretrain(
    config: Config,
    *,
    autoencoder: Path,
    cohort: CohortFiles,
    out: Path,
    state: Path,
    stop_after_s: float | None = None,
) -> None:
    """Stage 1: train the whole denoiser on all training images with the empty caption.

    With ``training.pretrain.trains: nothing`` the folder holds untrained parts.
    """
    rows = _read(cohort, config).training()
    vae = load_autoencoder(autoencoder)
    if not config.model.checkpoint:
        _check_latent_channels(vae, config, autoencoder)
    settings = config.training.pretrain
    model = new_model(config, vae).to(compute_device())
    if settings.trains == "controlnet on black masks":
        _add_controlnet(model, config)
        of_controlnet = identity_of(rows, config.model.condition)
    else:
        of_controlnet = {}
    logs = {}
    if settings.trains != "nothing":
        latents = cached_latents(vae, images_of(rows["image"]), state / "latents")
        logs["pretrain.jsonl"] = _train(
            PretrainStage(model, latents, list(rows["caption"]), settings),
            settings,
            seed=config.seed,
            purpose="pretrain",
            state=state,
            identity=identity_of(rows, settings, config.model.unet, config.model.text)
            | identity_of(rows, config.model.noise)
            | of_controlnet
            | {"checkpoint": _checkpoint_hash(config)}
            | {"autoencoder": sha256_folder(autoencoder)},
            stop_after_s=stop_after_s,
        )
    model.about |= {"stage": "pretrain", "pretrain_cases": list(rows["case_id"])}
    if ranks.is_first():
        save_model(model, out, logs)


def train_finetune(
    config: Config,
    *,
    base: Path,
    labels: LabelBudget,
    cohort: CohortFiles,
    out: Path,
    state: Path,
    stop_after_s: float | None = None,
    look: Callable[[DiffusionModel], Look] | None = None,
) -> None:
    """Stage 2: train ControlNet and caption encoder on this budget of the labels.

    Args:
        look: looks at the model in training, every ``training.finetune.watch_every_images``.
    """
    model = load_model(base)
    if model.about.get("stage") != "pretrain":
        raise ModelFolderError(f"{base}: is not a stage-1 model; give that of `train pretrain`")
    check_model_matches(model, config, base)
    rows = _read(cohort, config).labelled_training(labels)
    # Gate and conditions are stage 2's own; the rest must be what stage 1 was made with.
    model.about["model"] = config.model.model_dump(mode="json")
    if not config.model.condition.mask:
        model.controlnet = None  # that of a published stage 1
    elif model.controlnet is None:
        _add_controlnet(model, config)
    add_adapters(model, config.model, config.seed)
    model.to(compute_device())
    every = config.training.finetune.watch_every_images
    if (every is None) != (look is None):
        raise InputError(
            f"training.finetune.watch_every_images is {every}, but a segmenter to watch with was "
            f"{'not ' if look is None else ''}given; name --segmenter and --weights, or set it to "
            "null"
        )
    log = _train(
        _finetune_stage(model, rows, config, state),
        config.training.finetune,
        seed=config.seed,
        purpose=f"finetune-{labels.slug}",
        state=state,
        identity=identity_of(
            rows, config.training.finetune, config.model.gate, config.model.condition
        )
        | {"text_lora": str(config.model.text_lora), "unet_lora": str(config.model.unet_lora)}
        | {"base": sha256_folder(base)},
        stop_after_s=stop_after_s,
        watch=Watch(every, partial(look, model), better_generator) if every and look else None,
    )
    model.about |= {
        "stage": "finetune",
        "labels": str(labels),
        "finetune_cases": list(rows["case_id"]),
    }
    logs = {"pretrain.jsonl": base / "pretrain.jsonl", "finetune.jsonl": log}
    logs["watch.jsonl"] = log.with_name("watch.jsonl")
    if ranks.is_first():
        save_model(model, out, {name: file for name, file in logs.items() if file.is_file()})


def train_distill(
    config: Config,
    *,
    base: Path,
    labels: LabelBudget,
    cohort: CohortFiles,
    out: Path,
    state: Path,
    stop_after_s: float | None = None,
) -> None:
    """Stage 3: a few-step model that does without guidance what a fine-tuned one does with it.

    It is told the masks and captions of this budget of the labels, those of stage 2.
    """
    model = load_model(base)
    if model.about.get("stage") != "finetune":
        raise ModelFolderError(f"{base}: is no fine-tuned model; give that of `train finetune`")
    settings = config.training.distill
    if settings is None:
        raise InputError(
            "training.distill is missing; e.g. distill: {images: 9600, steps: 3} with "
            "sampler.steps: 6"
        )
    rows = _read(cohort, config).labelled_training(labels)
    model.to(compute_device())
    masks_NHW, captions = images_of(rows["mask"]), list(rows["caption"])
    stage = DistillStage(model, masks_NHW, captions, settings, config.sampler)
    log = _train(
        stage,
        settings,
        seed=config.seed,
        purpose=f"distill-{labels.slug}",
        state=state,
        identity=identity_of(rows, settings, config.sampler) | {"base": sha256_folder(base)},
        stop_after_s=stop_after_s,
    )
    model.scheduler = stage.scheduler
    model.about |= {
        "stage": "distill",
        "distill_cases": list(rows["case_id"]),
        "distilled": {"steps": settings.steps, "teacher": sha256_folder(base)}
        | {"teacher_sampler": config.sampler.model_dump(mode="json")},
    }
    if ranks.is_first():
        logs = {file.name: file for file in base.glob("*.jsonl")}
        save_model(model, out, logs | {"distill.jsonl": log})


def _train(stage: Stage, settings: StageConfig, *, purpose: str, **options: Any) -> Path:
    """Train a stage of the generator, which must see different images in a batch.

    Raises:
        InputError: a batch larger than the data.
    """
    if settings.batch > stage.count:
        raise InputError(
            f"{purpose}: a batch of {settings.batch} images, but there are {stage.count} to train "
            f"on; set training.{purpose.partition('-')[0]}.batch: {stage.count} or less, or use "
            "more images"
        )
    return train(stage, settings, purpose=purpose, **options)


def _add_controlnet(model: DiffusionModel, config: Config) -> None:
    seed = integer_seed(config.seed, "controlnet weights")
    factor = latent_factor(model.autoencoder)
    model.controlnet = build_controlnet(config.model, model.unet, factor, seed)


def _finetune_stage(
    model: DiffusionModel, rows: pd.DataFrame, config: Config, state: Path
) -> FinetuneStage:
    latents = cached_latents(model.autoencoder, images_of(rows["image"]), state / "latents")
    masks_NHW, captions = images_of(rows["mask"]), list(rows["caption"])
    return FinetuneStage(model, latents, masks_NHW, captions, config.training.finetune)


def _read(cohort: CohortFiles, config: Config) -> Cohort:
    """The columns training needs.

    Raises:
        InputError: images of another size than the configuration says.
    """
    found = cohort.read(_COLUMNS)
    table = found.cases
    size = config.image.size_px
    other = table[(table["height_px"] != size) | (table["width_px"] != size)]
    if len(other):
        first = other.iloc[0]
        raise InputError(
            f"{len(other)} image(s) are not {size} x {size} px as image.size_px says, e.g. "
            f"{first.case_id}: {first.width_px} x {first.height_px}; harmonize again"
        )
    return found


def _check_latent_channels(vae: AutoencoderTiny, config: Config, folder: Path) -> None:
    found, asked = vae.config.latent_channels, config.model.autoencoder.latent_channels
    if found != asked:
        raise ModelFolderError(
            f"{folder}: has latent_channels {found}, the configuration says "
            f"model.autoencoder.latent_channels: {asked}; train the autoencoder again"
        )


def _checkpoint_hash(config: Config) -> str:
    if not config.model.checkpoint:
        return "none"
    folder = checkpoint_folder(config.model.checkpoint)
    return " ".join(sha256_folder(folder / part) for part in ("unet", "text_encoder"))
