"""nnU-Net v2 as a segmenter: its own planner, augmentation and trainer.

It is an optional package (doi 10.1038/s41592-020-01008-z). It is given the images of an arm as a
raw dataset, and asked for the masks of others.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import nn

from stdiff.config.run import Config
from stdiff.config.segmentation import SegmenterConfig
from stdiff.downstream.images import ArmImages, LabelledImages
from stdiff.export.nnunet import about_dataset
from stdiff.runtime.device import compute_device
from stdiff.runtime.files import InputError, write_text
from stdiff.training.checkpoints import CheckpointFolder

_ID, _NAME = 501, "Dataset501_arm"
# Of nnU-Net itself.
_EPOCHS, _STEPS_AN_EPOCH = 1000, 250


def train_nnunet(
    config: Config,
    recipe: SegmenterConfig,
    stream: str,
    seen: ArmImages,
    validation: LabelledImages | None,
    state: Path,
) -> tuple[nn.Module, Callable[[np.ndarray], np.ndarray]]:
    """Plan, preprocess and train; a training that was stopped goes on after its last epoch.

    Synthetic images are further training cases: nnU-Net draws all cases alike. Every arm is trained
    for ``options.epochs`` epochs of ``options.steps_per_epoch`` batches of
    ``segmentation.training.batch`` images; all else is nnU-Net's. The weights after the last epoch
    are used, and validation images only printed about.

    On CPU, where images are augmented in the training's own process, the same command gives the
    same weights.

    Args:
        config: The run.
        recipe: The segmenter.
        stream: Name of the random stream.
        seen: Images of the arm.
        validation: Real validation lesions; None = the run has none.
        state: Folder of the checkpoints, and of nnU-Net's own folders.

    Returns:
        The network, and what makes masks (N, H, W) uint8 of images (N, H, W) uint8.

    Raises:
        InputError: nnU-Net is not installed.
        Interrupted: on SIGTERM or SIGINT.
    """
    version = _installed()
    settings = config.segmentation.training
    identity = {
        "nnunetv2": version,
        "segmenter": recipe.model_dump_json(),
        "batch": str(settings.batch),
        "seed": str(config.seed),
        "stream": stream,
        **seen.identity,
    }
    if validation is not None:
        identity["validation"] = validation.sha256
    with CheckpointFolder.open(state, identity) as checkpoints:
        _own_folders(checkpoints.path.resolve())
        plans, about = _planned(checkpoints.path, seen, validation)
        plans["configurations"]["2d"]["batch_size"] = settings.batch
        if compute_device().type == "cpu":
            # Only now: its planner fails without any.
            os.environ.setdefault("nnUNet_n_proc_DA", "0")

        from stdiff.downstream.nnunet_trainer import Trainer, masks_by

        trainer = Trainer(
            plans | {"continue_training": False},
            "2d",
            "all" if validation is None else 0,
            about,
            compute_device(),
        )
        trainer.num_epochs = int(recipe.options.get("epochs", _EPOCHS))
        steps = int(recipe.options.get("steps_per_epoch", _STEPS_AN_EPOCH))
        trainer.num_iterations_per_epoch = steps
        trainer.num_val_iterations_per_epoch = max(1, steps // 5)
        trainer.train_in(checkpoints, config.seed, stream)
        for kind in ("raw", "preprocessed"):
            shutil.rmtree(checkpoints.path / f"nnUNet_{kind}")
    return trainer.network, lambda images_NHW: masks_by(trainer, images_NHW)


def _installed() -> str:
    """Version of nnU-Net."""
    try:
        return importlib.metadata.version("nnunetv2")
    except importlib.metadata.PackageNotFoundError:
        raise InputError(
            "network nnUNet takes nnU-Net v2, which is not installed; install it with "
            "`pip install 'stdiff[nnunet]'`, or take the segmenter out of segmentation.segmenters"
        ) from None


def _own_folders(folder: Path) -> None:
    """Say where nnU-Net reads and writes, which it asks once, when it is imported."""
    for kind in ("raw", "preprocessed", "results"):
        path = folder / f"nnUNet_{kind}"
        shutil.rmtree(path, ignore_errors=True)
        path.mkdir()
        os.environ[f"nnUNet_{kind}"] = str(path)
    from nnunetv2 import paths

    if paths.nnUNet_raw != str(folder / "nnUNet_raw"):
        raise RuntimeError(f"this process already uses nnU-Net, in {paths.nnUNet_raw}")


def _planned(
    folder: Path, seen: ArmImages, validation: LabelledImages | None
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Plans of nnU-Net for these images, which stand preprocessed; and its ``dataset.json``."""
    from nnunetv2.experiment_planning.plan_and_preprocess_api import (
        extract_fingerprints,
        plan_experiments,
        preprocess,
    )

    _write_raw(folder / "nnUNet_raw" / _NAME, seen, validation)
    processes = torch.get_num_threads()
    extract_fingerprints([_ID], num_processes=processes, check_dataset_integrity=True)
    plan_experiments([_ID])
    preprocess([_ID], configurations=("2d",), num_processes=(processes,))
    made = folder / "nnUNet_preprocessed" / _NAME
    plans, about = (
        json.loads((made / f"{n}.json").read_text()) for n in ("nnUNetPlans", "dataset")
    )
    return plans, about


def _write_raw(folder: Path, seen: ArmImages, validation: LabelledImages | None) -> None:
    """A raw dataset of nnU-Net, with the split into what it learns from and what it looks at."""
    parts = {"real": seen.real, "synthetic": seen.synthetic, "validation": validation}
    names = {part: _write_pairs(folder, part, of) for part, of in parts.items() if of is not None}
    about = about_dataset(sum(map(len, names.values())))
    write_text(folder / "dataset.json", json.dumps(about))
    val = names.pop("validation", [])
    if val:
        split = {"train": sum(names.values(), []), "val": val}
        write_text(folder / "splits_final.json", json.dumps([split]))


def _write_pairs(folder: Path, part: str, of: LabelledImages) -> list[str]:
    """Write images and labels; returns their names."""
    names = [f"{part}_{number:06d}" for number in range(len(of))]
    for kind in ("imagesTr", "labelsTr"):
        (folder / kind).mkdir(parents=True, exist_ok=True)
    for name, image_HW, mask_HW in zip(names, of.images_NHW, of.masks_NHW, strict=True):
        Image.fromarray(image_HW).save(folder / "imagesTr" / f"{name}_0000.png")
        Image.fromarray((mask_HW > 0).astype(np.uint8)).save(folder / "labelsTr" / f"{name}.png")
    return names
