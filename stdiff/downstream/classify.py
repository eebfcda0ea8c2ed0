"""Train one classifier on one arm and predict class probabilities of every held-out lesion."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import timm
import torch
from torch import nn

from stdiff.config.downstream import ClassificationConfig, Target
from stdiff.config.run import Config
from stdiff.downstream.arm_training import train_phases
from stdiff.downstream.arms import parse_arm
from stdiff.downstream.classes import CLASSES, classes_of
from stdiff.downstream.classifier_stage import ClassifierStage
from stdiff.downstream.images import images_of_arm, with_known_class
from stdiff.downstream.networks import device_batches, normalised, save_network, try_training_step
from stdiff.downstream.per_case import held_out_lesions, per_case_rows, write_per_case
from stdiff.runtime.device import compute_device
from stdiff.runtime.errors import InputError, nearest
from stdiff.runtime.randomness import integer_seed
from stdiff.table.cases import images_of
from stdiff.table.cohort import CohortFiles

_BATCH = 64


def build_classifier(network: str, classes: int, seed: int) -> nn.Module:
    """A timm network with random weights: grey images (N, 1, H, W) to logits (N, classes).

    Raises:
        InputError: timm has no network of this name.
    """
    if not timm.is_model(network):
        near = nearest(network, timm.list_models(), count=3)
        raise InputError(
            f"classification.network {network!r} is not a network of timm; did you mean "
            f"{', '.join(near)}? `timm.list_models()` lists them"
        )
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model = timm.create_model(network, pretrained=False, in_chans=1, num_classes=classes)
    except Exception as error:  # networks of others may raise anything
        raise InputError(
            f"classification.network {network!r} cannot be built ({' '.join(str(error).split())}); "
            "try another, e.g. resnet18"
        ) from error
    return model.to(compute_device(), memory_format=torch.channels_last)


def classify_arm(
    config: Config,
    *,
    target: Target,
    arm: str,
    repetition: int,
    cohort: CohortFiles,
    corpus: Sequence[Path],
    out: Path,
    weights: Path,
    state: Path,
) -> None:
    """Train a classifier on an arm; write its weights and class probabilities.

    Arms, label budgets, augmentation and steps are those of the segmenters. Probabilities are
    predicted for all annotated validation and test lesions of a known class.

    Args:
        config: The run, with a section ``classification``.
        target: ``pathology`` or ``birads``.
        arm: ``<arm>-<labels>``, e.g. ``mixed-10``.
        repetition: Number of the repetition, from 0.
        cohort: Real cases and their splits.
        corpus: Case tables of synthetic images; read only if the arm uses any.
        out: Parquet table to write, one row per lesion: ``truth``, and ``p_<class>`` in [0, 1].
        weights: Safetensors file to write.
        state: Folder of the checkpoints.

    Raises:
        InputError: see :func:`stdiff.downstream.images.images_of_arm`; or no section
            ``classification``, an unknown network, an arm with unlabelled images, or test lesions
            of fewer than two classes.
    """
    settings = _classification_section(config)
    chosen = parse_arm(arm, config)
    if chosen.config.without_masks:
        raise InputError(
            f"arm {arm} uses images without masks, which only a semi-supervised segmenter can; "
            "choose another arm for a classifier"
        )
    real = cohort.read()
    lesions = {
        role: with_known_class(rows, target, f"{role} lesion")
        for role, rows in held_out_lesions(config, real).items()
    }
    images = images_of_arm(chosen, real, corpus, config.image.size_px, target)
    stream, classes = f"classifier {target} {repetition}", CLASSES[target]
    network = build_classifier(
        settings.network, len(classes), integer_seed(config.seed, f"{stream} weights")
    )
    train_phases(
        chosen,
        lambda phase, _: ClassifierStage(network, phase, images),
        settings.training,
        seed=config.seed,
        stream=stream,
        state=state,
        identity={"network": settings.network, **images.identity},
    )
    save_network(network, weights, images.known, labels=chosen.labels)

    def predictions(_: str, rows: pd.DataFrame) -> pd.DataFrame:
        table = _probabilities(network, images_of(rows["image"]), classes)
        return table.assign(truth=np.array(classes)[classes_of(rows, target)])

    training = {
        "target": target,
        "arm": chosen.name,
        "labels": str(chosen.labels),
        "repetition": repetition,
        **images.counts,
    }
    kept = ["case_id", "collection", "group_id"]
    write_per_case(per_case_rows(lesions, kept, training, predictions), out)


def check_classifier(config: Config) -> None:
    """Try a training step of the classifier.

    Raises:
        InputError: the network is unknown, or cannot take the images.
    """
    settings = _classification_section(config)

    def step(trial: nn.Module, x_N1HW: torch.Tensor) -> None:
        trial(normalised(x_N1HW)).mean().backward()

    try_training_step(
        build_classifier(settings.network, 2, seed=0).cpu(),
        step,
        f"classification.network {settings.network!r}",
        config.image.size_px,
        "classification.training",
        settings.training,
    )


def _classification_section(config: Config) -> ClassificationConfig:
    if config.classification is None:
        raise InputError(
            "the configuration has no section classification; e.g. classification: "
            "{targets: [pathology], training: {images: 9600, batch: 16}}"
        )
    return config.classification


@torch.no_grad()
def _probabilities(
    network: nn.Module, images_NHW: np.ndarray, classes: Sequence[str]
) -> pd.DataFrame:
    """Softmax of the logits, one column ``p_<class>`` per class."""
    parts = [
        network(normalised(grey_N1HW)).softmax(dim=1).cpu().numpy()
        for grey_N1HW in device_batches(network, images_NHW, _BATCH)
    ]
    return pd.DataFrame(np.concatenate(parts), columns=[f"p_{name}" for name in classes])
