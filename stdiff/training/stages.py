"""The training stages of the generator, from case tables to model folders."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from diffusers import AutoencoderTiny

from stdiff.config.run import Config
from stdiff.config.training import StageConfig
from stdiff.diffusion.autoencoder import build_autoencoder, latent_factor
from stdiff.diffusion.checkpoint import checkpoint_folder, load_checkpoint
from stdiff.diffusion.folder import check_model_matches, load_model, save_model
from stdiff.diffusion.model import DiffusionModel, add_adapters, new_model
from stdiff.diffusion.part_checks import ModelFolderError, check_files
from stdiff.diffusion.parts import load_autoencoder
from stdiff.diffusion.unet import build_controlnet
from stdiff.runtime.device import compute_device
from stdiff.runtime.files import InputError, atomic_write, sha256_folder, write_sums, write_text
from stdiff.runtime.randomness import integer_seed
from stdiff.table.cases import images_of
from stdiff.table.cohort import Cohort, CohortFiles
from stdiff.table.label_budget import LabelBudget
from stdiff.training import distributed
from stdiff.training.autoencoder import DecoderStage
from stdiff.training.distill import DistillStage
from stdiff.training.finetune import FinetuneStage
from stdiff.training.identity import identity_of
from stdiff.training.latents import cached_latents
from stdiff.training.loop import train
from stdiff.training.pretrain import PretrainStage
from stdiff.training.progress import Stage
from stdiff.training.validation import Validation, ValidationResult, better_generator

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

    A checkpoint's autoencoder is copied as it is.
    """
    if config.model.checkpoint:
        if distributed.is_main_process():
            with atomic_write(out) as temporary:
                load_checkpoint(config.model.checkpoint).autoencoder.save_pretrained(temporary)
                write_sums(temporary)
        return
    rows = _read(cohort, config).training()
    images_NHW = images_of(rows["image"])
    seed = integer_seed(config.seed, "autoencoder weights")
    autoencoder = build_autoencoder(config.model.autoencoder, images_NHW, seed)
    autoencoder.to(compute_device())
    settings = config.training.autoencoder
    log = _train(
        DecoderStage(autoencoder, images_NHW),
        settings,
        "autoencoder",
        seed=config.seed,
        state=state,
        identity=identity_of(rows, settings, config.model.autoencoder),
        stop_after_s=stop_after_s,
    )
    if not distributed.is_main_process():
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
    """Stage 1: train the whole U-Net on all training images with the empty caption.

    With ``training.pretrain.trains: nothing`` the model is saved untrained.
    """
    rows = _read(cohort, config).training()
    check_files(autoencoder)
    vae = load_autoencoder(autoencoder)
    if not config.model.checkpoint:
        _check_latent_channels(vae, config, autoencoder)
    settings, parts, logs = config.training.pretrain, config.model, {}
    model = new_model(config, vae).to(compute_device())
    identity = identity_of(rows, settings, parts.unet, parts.text, parts.noise) | {
        "checkpoint": _checkpoint_hash(config),
        "autoencoder": sha256_folder(autoencoder),
    }
    if settings.trains == "controlnet on black masks":
        _add_controlnet(model, config)
        identity |= identity_of(rows, parts.condition)
    if settings.trains != "nothing":
        latents = cached_latents(vae, images_of(rows["image"]), state / "latents")
        logs["pretrain.jsonl"] = _train(
            PretrainStage(model, latents, list(rows["caption"]), settings),
            settings,
            "pretrain",
            seed=config.seed,
            state=state,
            identity=identity,
            stop_after_s=stop_after_s,
        )
    _save(model, out, logs, {"stage": "pretrain", "pretrain_cases": list(rows["case_id"])})


def train_finetune(
    config: Config,
    *,
    base: Path,
    labels: LabelBudget,
    cohort: CohortFiles,
    out: Path,
    state: Path,
    stop_after_s: float | None = None,
    validate: Callable[[DiffusionModel], ValidationResult] | None = None,
    judge_cases: Sequence[str] | None = None,
) -> None:
    """Stage 2: train ControlNet and caption encoder on the labelled images of this budget.

    ``validate`` is called every ``training.finetune.validate_every_images`` images and required
    exactly if that key is set. ``judge_cases``: whose labels the segmenter of ``validate`` knows.
    """
    model = _load(base, "pretrain", "`stdiff train pretrain`")
    check_model_matches(model, config, base)
    rows = _read(cohort, config).labelled_training(labels)
    settings, parts = config.training.finetune, config.model
    every = settings.validate_every_images
    if (every is None) != (validate is None):
        raise InputError(
            f"training.finetune.validate_every_images is {every}, but a segmenter to validate with "
            f"was {'not ' if validate is None else ''}given; name --segmenter and --weights, or "
            "set the key to null"
        )
    # Gate and condition may differ from stage 1's; check_model_matches compared the rest.
    model.about["model"] = parts.model_dump(mode="json")
    if not parts.condition.mask:
        model.controlnet = None  # the one of a published stage 1
    elif model.controlnet is None:
        _add_controlnet(model, config)
    add_adapters(model, parts, config.seed)
    model.to(compute_device())
    latents = cached_latents(model.autoencoder, images_of(rows["image"]), state / "latents")
    masks_NHW, captions = images_of(rows["mask"]), list(rows["caption"])
    identity = identity_of(rows, settings, parts.gate, parts.condition) | {
        "text_lora": str(parts.text_lora),
        "unet_lora": str(parts.unet_lora),
        "base": sha256_folder(base),
    }
    validation = None
    if every and validate:
        validation = Validation(every, partial(validate, model), better_generator)
    log = _train(
        FinetuneStage(model, latents, masks_NHW, captions, settings),
        settings,
        f"finetune-{labels.slug}",
        seed=config.seed,
        state=state,
        identity=identity,
        stop_after_s=stop_after_s,
        validation=validation,
    )
    logs = {"pretrain.jsonl": base / "pretrain.jsonl", "finetune.jsonl": log}
    logs["validation.jsonl"] = log.with_name("validation.jsonl")
    about = {"stage": "finetune", "labels": str(labels), "finetune_cases": list(rows["case_id"])}
    about |= {"judge_cases": judge_cases} if validate else {}
    _save(model, out, {name: file for name, file in logs.items() if file.is_file()}, about)


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
    """Stage 3: train a few-step student that imitates the guided teacher without guidance.

    Its conditions are the masks and captions of this label budget, as in stage 2.
    """
    model = _load(base, "finetune", "`stdiff train finetune`")
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
    teacher = sha256_folder(base)
    log = _train(
        stage,
        settings,
        f"distill-{labels.slug}",
        seed=config.seed,
        state=state,
        identity=identity_of(rows, settings, config.sampler) | {"base": teacher},
        stop_after_s=stop_after_s,
    )
    model.scheduler = stage.scheduler
    sampler = config.sampler.model_dump(mode="json")
    distilled = {"steps": settings.steps, "teacher": teacher, "teacher_sampler": sampler}
    logs = {file.name: file for file in base.glob("*.jsonl")} | {"distill.jsonl": log}
    about = {"stage": "distill", "distill_cases": list(rows["case_id"]), "distilled": distilled}
    _save(model, out, logs, about)


def _train(
    stage: Stage,
    settings: StageConfig,
    stream: str,
    *,
    seed: int,
    state: Path,
    identity: dict[str, str],
    stop_after_s: float | None,
    validation: Validation | None = None,
) -> Path:
    """Train a generator stage, whose batches must not repeat an image.

    Raises:
        InputError: the batch is larger than the data.
    """
    if settings.batch > stage.count:
        raise InputError(
            f"{stream}: training.{stream.partition('-')[0]}.batch is {settings.batch}, but there "
            f"are only {stage.count} training images; set it to {stage.count} or less, or add "
            "images"
        )
    return train(
        stage,
        settings,
        seed=seed,
        stream=stream,
        state=state,
        identity=identity,
        stop_after_s=stop_after_s,
        validation=validation,
    )


def _load(folder: Path, stage: str, command: str) -> DiffusionModel:
    """The model of the stage before."""
    model = load_model(folder)
    if (found := model.about.get("stage")) != stage:
        raise ModelFolderError(
            f"{folder}: is a model of stage {found!r}, expected {stage!r}; give the output of "
            f"{command}"
        )
    return model


def _save(
    model: DiffusionModel, out: Path, logs: dict[str, Path], about: dict[str, object]
) -> None:
    model.about |= about
    if distributed.is_main_process():
        save_model(model, out, logs)


def _add_controlnet(model: DiffusionModel, config: Config) -> None:
    seed = integer_seed(config.seed, "controlnet weights")
    factor = latent_factor(model.autoencoder)
    model.controlnet = build_controlnet(config.model, model.unet, factor, seed)


def _read(cohort: CohortFiles, config: Config) -> Cohort:
    """The cases, with the columns that training needs.

    Raises:
        InputError: an image whose size is not ``image.size_px``.
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
    found, expected = vae.config.latent_channels, config.model.autoencoder.latent_channels
    if found != expected:
        raise ModelFolderError(
            f"{folder}: has latent_channels {found}, but model.autoencoder.latent_channels is "
            f"{expected}; train the autoencoder again"
        )


def _checkpoint_hash(config: Config) -> str:
    if not config.model.checkpoint:
        return "none"
    folder = checkpoint_folder(config.model.checkpoint)
    return " ".join(sha256_folder(folder / part) for part in ("unet", "text_encoder"))
