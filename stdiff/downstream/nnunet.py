"""nnU-Net v2 as a segmenter: its own planner, augmentation and trainer.

An optional package (doi 10.1038/s41592-020-01008-z). It gets the images of an arm as a raw dataset.
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

from stdiff.config.downstream import SegmenterConfig
from stdiff.config.run import Config
from stdiff.downstream.images import ArmImages, LabelledImages
from stdiff.export.nnunet import about_dataset
from stdiff.runtime.device import compute_device
from stdiff.runtime.files import InputError, write_text
from stdiff.training.checkpoints import CheckpointFolder

_DATASET_ID, _DATASET = 501, "Dataset501_arm"
# nnU-Net's defaults.
_EPOCHS, _STEPS_PER_EPOCH = 1000, 250


def train_nnunet(
    config: Config,
    network_config: SegmenterConfig,
    stream: str,
    images: ArmImages,
    validation: LabelledImages | None,
    state: Path,
) -> tuple[nn.Module, Callable[[np.ndarray], np.ndarray]]:
    """Plan, preprocess and train; an interrupted training resumes after its last epoch.

    Synthetic images are additional training cases, sampled like real ones. Every arm is trained for
    ``options.epochs`` epochs of ``options.steps_per_epoch`` batches of
    ``segmentation.training.batch`` images; everything else is nnU-Net's default. The weights after
    the last epoch are used; validation metrics are only printed.

    On CPU, where augmentation runs in the training's process, results are reproducible.

    Args:
        config: The run.
        network_config: The segmenter.
        stream: Name of the random stream.
        images: Training images of the arm.
        validation: Real validation lesions; None if the run has none.
        state: Folder of the checkpoints and of nnU-Net's folders.

    Returns:
        The network, and a function that predicts masks (N, H, W) uint8 of images (N, H, W) uint8.

    Raises:
        InputError: nnU-Net is not installed.
        Interrupted: on SIGTERM or SIGINT.
    """
    version = nnunet_version()
    settings = config.segmentation.training
    identity = {
        "nnunetv2": version,
        "segmenter": network_config.model_dump_json(),
        "batch": str(settings.batch),
        "seed": str(config.seed),
        "stream": stream,
        **images.identity,
    }
    if validation is not None:
        identity["validation"] = validation.sha256
    with CheckpointFolder.open(state, identity) as checkpoints:
        _set_folders(checkpoints.path.resolve())
        plans, dataset_json = _plan_and_preprocess(checkpoints.path, images, validation)
        plans["configurations"]["2d"]["batch_size"] = settings.batch
        if compute_device().type == "cpu":
            # Set after planning, because the planner fails with 0 processes.
            os.environ.setdefault("nnUNet_n_proc_DA", "0")

        from stdiff.downstream.nnunet_trainer import Trainer, predict_masks

        trainer = Trainer(
            plans | {"continue_training": False},
            "2d",
            "all" if validation is None else 0,
            dataset_json,
            compute_device(),
        )
        trainer.num_epochs = int(network_config.options.get("epochs", _EPOCHS))
        steps = int(network_config.options.get("steps_per_epoch", _STEPS_PER_EPOCH))
        trainer.num_iterations_per_epoch = steps
        trainer.num_val_iterations_per_epoch = max(1, steps // 5)
        trainer.train_with_checkpoints(checkpoints, config.seed, stream)
        for kind in ("raw", "preprocessed"):
            shutil.rmtree(checkpoints.path / f"nnUNet_{kind}")
    return trainer.network, lambda images_NHW: predict_masks(trainer, images_NHW)


def nnunet_version() -> str:
    """Version of the installed nnU-Net.

    Raises:
        InputError: it is not installed.
    """
    """Version of the installed nnU-Net.

    Raises:
        InputError: it is not installed.
    """
    try:
        return importlib.metadata.version("nnunetv2")
    except importlib.metadata.PackageNotFoundError:
        raise InputError(
            "network nnUNet needs nnU-Net v2, which is not installed; install it with "
            "`pip install 'stdiff[nnunet]'` or remove the segmenter from segmentation.segmenters"
        ) from None


def _set_folders(folder: Path) -> None:
    """Set the folders of nnU-Net, which it reads from the environment once, at import."""
    for kind in ("raw", "preprocessed", "results"):
        path = folder / f"nnUNet_{kind}"
        shutil.rmtree(path, ignore_errors=True)
        path.mkdir()
        os.environ[f"nnUNet_{kind}"] = str(path)
    from nnunetv2 import paths

    if paths.nnUNet_raw != str(folder / "nnUNet_raw"):
        raise RuntimeError(f"nnU-Net was imported before, with the folder {paths.nnUNet_raw}")


def _plan_and_preprocess(
    folder: Path, images: ArmImages, validation: LabelledImages | None
) -> tuple[dict[str, Any], dict[str, Any]]:
    """nnU-Net's plans for these images and its ``dataset.json``."""
    from nnunetv2.experiment_planning.plan_and_preprocess_api import (
        extract_fingerprints,
        plan_experiments,
        preprocess,
    )

    _write_raw(folder / "nnUNet_raw" / _DATASET, images, validation)
    processes = torch.get_num_threads()
    extract_fingerprints([_DATASET_ID], num_processes=processes, check_dataset_integrity=True)
    plan_experiments([_DATASET_ID])
    preprocess([_DATASET_ID], configurations=("2d",), num_processes=(processes,))
    preprocessed = folder / "nnUNet_preprocessed" / _DATASET
    plans, dataset_json = (
        json.loads((preprocessed / f"{name}.json").read_text())
        for name in ("nnUNetPlans", "dataset")
    )
    return plans, dataset_json


def _write_raw(folder: Path, images: ArmImages, validation: LabelledImages | None) -> None:
    """Write a raw dataset of nnU-Net with its training and validation split."""
    parts = {"real": images.real, "synthetic": images.synthetic, "validation": validation}
    names = {
        part: _write_pairs(folder, part, cases)
        for part, cases in parts.items()
        if cases is not None
    }
    dataset_json = about_dataset(sum(map(len, names.values())))
    write_text(folder / "dataset.json", json.dumps(dataset_json))
    if val := names.pop("validation", []):
        split = {"train": sum(names.values(), []), "val": val}
        write_text(folder / "splits_final.json", json.dumps([split]))


def _write_pairs(folder: Path, part: str, cases: LabelledImages) -> list[str]:
    """Write images and label maps; return the case names."""
    names = [f"{part}_{number:06d}" for number in range(len(cases))]
    for kind in ("imagesTr", "labelsTr"):
        (folder / kind).mkdir(parents=True, exist_ok=True)
    for name, image_HW, mask_HW in zip(names, cases.images_NHW, cases.masks_NHW, strict=True):
        Image.fromarray(image_HW).save(folder / "imagesTr" / f"{name}_0000.png")
        Image.fromarray((mask_HW > 0).astype(np.uint8)).save(folder / "labelsTr" / f"{name}.png")
    return names
