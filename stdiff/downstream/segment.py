"""Training one segmenter on one arm, and its metrics on every validation and test lesion."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np
import pandas as pd
from torch import nn

from stdiff.config.run import Config
from stdiff.config.segmentation import NNUNET, SegmenterConfig
from stdiff.config.training import StageConfig
from stdiff.downstream.arms import Arm, Phase, parse_arm
from stdiff.downstream.images import (
    ArmImages,
    LabelledImages,
    images_of_arm,
    labelled_images,
)
from stdiff.downstream.metrics import case_dice, case_metrics
from stdiff.downstream.networks import build_segmenter, check_takes, save_segmenter, segment
from stdiff.downstream.nnunet import train_nnunet
from stdiff.downstream.per_case import write_per_case
from stdiff.downstream.segmenter_stage import SegmenterStage
from stdiff.runtime.files import InputError
from stdiff.runtime.randomness import integer_seed
from stdiff.table.cohort import CohortFiles
from stdiff.training.loop import train
from stdiff.training.validation import Look, Watch, better_segmenter

_Settings = TypeVar("_Settings", bound=StageConfig)
# What is known of a tested case, beside its metrics.
_DESCRIBED = ["case_id", "collection", "group_id", "pathology", "birads", "device"]


def segmenter_config(config: Config, segmenter: str) -> SegmenterConfig:
    """The segmenter of this name in the configuration.

    Raises:
        InputError: there is none.
    """
    known = config.segmentation.segmenters
    if segmenter not in known:
        raise InputError(
            f"segmenter {segmenter!r} is not in the configuration; expected one of "
            f"{', '.join(known)}, or add it to segmentation.segmenters"
        )
    return known[segmenter]


def segment_arm(
    config: Config,
    *,
    segmenter: str,
    arm: str,
    seed: int,
    cohort: CohortFiles,
    corpus: Sequence[Path],
    out: Path,
    weights: Path,
    state: Path,
) -> None:
    """Train a segmenter on an arm; write its weights, then the metrics of every
    validation and test lesion.

    Weights and order of the images are drawn from ``seed`` alone, not from the arm, so that arms
    of one seed differ in their data only. The weights after the last step are used, or those with
    the best Dice on real validation lesions; nothing is chosen on test images.

    Args:
        config: The run.
        segmenter: A name in ``segmentation.segmenters``.
        arm: ``<arm>-<labels>``, e.g. ``mixed-10``.
        seed: Number of this training among its repetitions.
        cohort: Real cases and their splits.
        corpus: Case tables of synthetic images, of which those that the filter accepted are used;
            read only if the arm uses any.
        out: Parquet table to write, one row a lesion; ``role`` says of which kind.
        weights: Safetensors file to write.
        state: Folder of the checkpoints.

    Raises:
        InputError: unknown names, no test lesion, no labelled case, a missing corpus or one
            that is too small, images that are not of ``image.size_px``, or unlabelled images
            for a network that cannot use them.
    """
    chosen, recipe = parse_arm(arm, config), segmenter_config(config, segmenter)
    size_px, settings = config.image.size_px, config.segmentation.training
    real = cohort.read()
    lesions = {"test": real.lesions()}
    if config.split.validation:
        lesions["validation"] = real.lesions("validation")
    images = {role: labelled_images(rows, size_px) for role, rows in lesions.items()}
    seen = images_of_arm(chosen, real, corpus, size_px)

    if not recipe.takes(chosen.config):
        raise InputError(
            f"segmenter {segmenter} cannot be trained on arm {arm}: only MGCC takes images without "
            "masks, and nnUNet draws all its images alike (no pretrained, weighted or "
            "synthetic_share); choose another arm or segmenter"
        )
    known = {"labels": seen.labelled_cases, "images": seen.unlabelled_cases}
    purpose = f"segmenter {segmenter} {seed}"
    if recipe.network == NNUNET:
        network, masks_of = train_nnunet(
            config, recipe, purpose, seen, images.get("validation"), state
        )
    else:
        network = _train_network(config, recipe, chosen, purpose, seen, images, state)
        masks_of = partial(segment, network)
        if settings.validate_every_images:
            known["chosen_on"] = tuple(lesions["validation"]["case_id"])
    save_segmenter(network, weights, known)
    described = {
        "segmenter": segmenter,
        "arm": chosen.name,
        "labels": str(chosen.labels),
        "seed": seed,
        **seen.counts,
    }
    parts = [
        pd.concat(
            [
                rows[_DESCRIBED].assign(role=role, **described),
                case_metrics(
                    masks_of(images[role].images_NHW),
                    images[role].masks_NHW,
                    rows["pixel_spacing_mm"].to_numpy(float, na_value=np.nan),
                ),
            ],
            axis=1,
        )
        for role, rows in lesions.items()
    ]
    write_per_case(pd.concat(parts, ignore_index=True), out)


def _train_network(
    config: Config,
    recipe: SegmenterConfig,
    arm: Arm,
    purpose: str,
    seen: ArmImages,
    images: dict[str, LabelledImages],
    state: Path,
) -> nn.Module:
    """A network, trained by our own recipe in all phases of the arm."""
    settings = config.segmentation.training
    network = build_segmenter(recipe, integer_seed(config.seed, f"{purpose} weights"))
    check_takes(network, recipe, config.image.size_px)
    *before, last = arm.phases
    identity = {"segmenter": recipe.model_dump_json(), **seen.identity}
    for phase in (*before, last):
        part = settings_of(phase, settings)
        train(
            SegmenterStage(network, phase, seen, part.images),
            part,
            seed=config.seed,
            purpose=f"{purpose} {phase.name}" if before else purpose,
            state=state / phase.name,
            identity=identity
            | {"phases": repr(arm.phases), "training": settings.model_dump_json()},
            watch=_watch(network, images["validation"], settings.validate_every_images)
            if phase == last and settings.validate_every_images
            else None,
        )
    return network


def settings_of(phase: Phase, settings: _Settings) -> _Settings:
    """The settings of a training for its part ``phase``, in whole batches."""
    batches = max(1, round(phase.fraction * settings.images / settings.batch))
    return settings.model_copy(update={"images": batches * settings.batch})


def _watch(network: nn.Module, lesions: LabelledImages, every_images: int) -> Watch:
    """Looks at the network on validation lesions."""

    def look() -> Look:
        dice = case_dice(segment(network, lesions.images_NHW), lesions.masks_NHW)
        return Look({"dice": float(np.nanmean(dice))})

    return Watch(every_images, look, better_segmenter)
