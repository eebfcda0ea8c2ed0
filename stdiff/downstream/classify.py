"""Training one classifier on one arm, and its class probabilities on every held-out lesion."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import timm
import torch
from torch import nn

from stdiff.config.classification import ClassificationConfig
from stdiff.config.run import Config
from stdiff.downstream.arms import parse_arm
from stdiff.downstream.classes import CLASSES, Target, classes_of
from stdiff.downstream.classifier_stage import ClassifierStage, prepared
from stdiff.downstream.images import images_of_arm, of_known_class
from stdiff.downstream.networks import save_segmenter
from stdiff.downstream.per_case import write_per_case
from stdiff.downstream.segment import settings_of
from stdiff.runtime.device import compute_device
from stdiff.runtime.files import InputError
from stdiff.runtime.randomness import integer_seed
from stdiff.table.cases import images_of
from stdiff.table.cohort import CohortFiles
from stdiff.training.loop import train

_BATCH = 64


def build_classifier(network: str, classes: int, seed: int) -> nn.Module:
    """A network of timm with random weights: grey images (N, 1, H, W) → logits (N, classes).

    Raises:
        InputError: timm has no network of this name, or it cannot be built for grey images.
    """
    if not timm.is_model(network):
        near = difflib.get_close_matches(network, timm.list_models(), n=3, cutoff=0.0)
        raise InputError(
            f"classification.network {network!r} is not one of timm's; did you mean "
            f"{', '.join(near)}? `timm.list_models()` lists them"
        )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = timm.create_model(network, pretrained=False, in_chans=1, num_classes=classes)
    return model.to(compute_device(), memory_format=torch.channels_last)


def classify_arm(
    config: Config,
    *,
    target: Target,
    arm: str,
    seed: int,
    cohort: CohortFiles,
    corpus: Sequence[Path],
    out: Path,
    weights: Path,
    state: Path,
) -> None:
    """Train a classifier on an arm; write its weights, then the class probabilities of every
    annotated validation and test lesion of a known class.

    Arms, budgets, augmentation and steps are those of the segmenters; what differs is the target.

    Args:
        config: The run, with a section ``classification``.
        target: ``pathology`` or ``birads``.
        arm: ``<arm>-<labels>``, e.g. ``mixed-10``.
        seed: Number of this training among its repetitions.
        cohort: Real cases and their splits.
        corpus: Case tables of synthetic images; read only if the arm uses any.
        out: Parquet table to write, one row a lesion: ``truth``, and ``p_<class>`` in [0, 1].
        weights: Safetensors file to write.
        state: Folder of the checkpoints.

    Raises:
        InputError: see :func:`stdiff.downstream.images.images_of_arm`; or no section
            ``classification``, an unknown network, an arm with unlabelled images, or
            no test lesion of two classes.
    """
    settings = section_of(config)
    chosen = parse_arm(arm, config)
    if chosen.config.without_masks:
        raise InputError(
            f"arm {arm} sees images without masks, which only a semi-supervised segmenter can use; "
            "choose another arm for a classifier"
        )
    real = cohort.read()
    lesions = {"test": of_known_class(real.lesions(), target, "test lesion")}
    if config.split.validation:
        held_out = real.lesions("validation")
        lesions["validation"] = of_known_class(held_out, target, "validation lesion")
    seen = images_of_arm(chosen, real, corpus, config.image.size_px, target)
    stream = f"classifier {target} {seed}"
    classes = CLASSES[target]
    network = build_classifier(
        settings.network, len(classes), integer_seed(config.seed, f"{stream} weights")
    )
    for phase in chosen.phases:
        train(
            ClassifierStage(network, phase, seen),
            settings_of(phase, settings.training),
            seed=config.seed,
            stream=f"{stream} {phase.name}" if len(chosen.phases) > 1 else stream,
            state=state / phase.name,
            identity={"network": settings.network, "phases": repr(chosen.phases)}
            | {"training": settings.training.model_dump_json(), **seen.identity},
        )
    save_segmenter(network, weights, {"labels": seen.labelled_cases})
    parts = [
        pd.concat(
            [
                rows[["case_id", "collection", "group_id"]].assign(
                    role=role,
                    target=target,
                    arm=chosen.name,
                    labels=str(chosen.labels),
                    seed=seed,
                    **seen.counts,
                ),
                _probabilities(network, images_of(rows["image"]), classes),
                _truth(rows, target),
            ],
            axis=1,
        )
        for role, rows in lesions.items()
    ]
    write_per_case(pd.concat(parts, ignore_index=True), out)


def section_of(config: Config) -> ClassificationConfig:
    """The section on classification.

    Raises:
        InputError: there is none.
    """
    if config.classification is None:
        raise InputError(
            "the configuration has no section classification; e.g. classification: "
            "{targets: [pathology], training: {images: 9600, batch: 16}}"
        )
    return config.classification


def _truth(rows: pd.DataFrame, target: Target) -> pd.Series:
    names = np.array(CLASSES[target])
    return pd.Series(names[classes_of(rows, target)], name="truth")


@torch.no_grad()
def _probabilities(
    network: nn.Module, images_NHW: np.ndarray, classes: Sequence[str]
) -> pd.DataFrame:
    """Softmax of the logits, a column ``p_<class>`` each."""
    network.eval()
    device = next(network.parameters()).device
    parts = []
    for start in range(0, len(images_NHW), _BATCH):
        grey_N1HW = torch.from_numpy(images_NHW[start : start + _BATCH, None]).to(device).float()
        parts.append(network(prepared(grey_N1HW)).softmax(dim=1).cpu().numpy())
    return pd.DataFrame(np.concatenate(parts), columns=[f"p_{name}" for name in classes])
