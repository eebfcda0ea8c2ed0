"""Train one segmenter on one arm and measure it on every validation and test lesion."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
from torch import nn

from stdiff.config.downstream import NNUNET, SegmenterConfig
from stdiff.config.run import Config
from stdiff.downstream.arm_training import train_phases
from stdiff.downstream.arms import Arm, parse_arm
from stdiff.downstream.images import ArmImages, LabelledImages, images_of_arm, labelled_images
from stdiff.downstream.metrics import case_dice, case_metrics
from stdiff.downstream.networks import build_segmenter, check_image_size, save_network, segment
from stdiff.downstream.nnunet import train_nnunet
from stdiff.downstream.per_case import held_out_lesions, per_case_rows, write_per_case
from stdiff.downstream.segmenter_stage import SegmenterStage
from stdiff.runtime.files import InputError
from stdiff.runtime.images import encode_png
from stdiff.runtime.randomness import integer_seed
from stdiff.table.cohort import CohortFiles
from stdiff.training.validation import Validation, ValidationResult, better_segmenter

# Columns of a case that its per-case row keeps.
_KEPT = ["case_id", "collection", "group_id", "pathology", "birads", "device"]


def segmenter_config(config: Config, segmenter: str) -> SegmenterConfig:
    """The segmenter of this name in the configuration.

    Raises:
        InputError: the configuration has none.
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
    repetition: int,
    cohort: CohortFiles,
    corpus: Sequence[Path],
    out: Path,
    weights: Path,
    state: Path,
) -> None:
    """Train a segmenter on an arm; write its weights and the metrics of all held-out lesions.

    Initial weights and image order depend on ``repetition`` but not on the arm, so arms of one
    repetition differ only in their data. The final weights are used, or those with the best Dice on
    real validation lesions; nothing is chosen on test images.

    Args:
        config: The run.
        segmenter: A name in ``segmentation.segmenters``.
        arm: ``<arm>-<labels>``, e.g. ``mixed-10``.
        repetition: Number of the repetition, from 0.
        cohort: Real cases and their splits.
        corpus: Case tables of synthetic images; only accepted images are used, and the tables are
            read only if the arm uses any.
        out: Parquet table to write, one row per lesion with its ``role``.
        weights: Safetensors file to write.
        state: Folder of the checkpoints.

    Raises:
        InputError: unknown names, no test lesion, no labelled case, a missing or too small corpus,
            images that are not of ``image.size_px``, or an arm that the network cannot be trained
            on.
    """
    chosen, network_config = parse_arm(arm, config), segmenter_config(config, segmenter)
    size_px = config.image.size_px
    real = cohort.read()
    lesions = held_out_lesions(config, real)
    held_out = {role: labelled_images(rows, size_px) for role, rows in lesions.items()}
    images = images_of_arm(chosen, real, corpus, size_px)
    if not network_config.supports(chosen.config):
        raise InputError(
            f"segmenter {segmenter} cannot be trained on arm {arm}: only MGCC uses images without "
            "masks, and nnUNet samples all images alike (no pretrained, weighted or "
            "synthetic_share); choose another arm or segmenter"
        )
    known = images.known
    stream = f"segmenter {segmenter} {repetition}"
    if network_config.network == NNUNET:
        network, predict = train_nnunet(
            config, network_config, stream, images, held_out.get("validation"), state
        )
    else:
        network = _train(config, network_config, chosen, stream, images, held_out, state)
        predict = partial(segment, network)
        if config.segmentation.training.validate_every_images:
            known["chosen_on"] = tuple(lesions["validation"]["case_id"])
    takes = {"segmenter": network_config.model_dump(mode="json")}
    takes["image"] = config.image.model_dump(mode="json")
    save_network(network, weights, known, takes, chosen.labels)

    def metrics(role: str, rows: pd.DataFrame) -> pd.DataFrame:
        axes = ["pixel_spacing_y_mm", "pixel_spacing_mm"]
        spacing_mm = rows[axes].to_numpy(float, na_value=np.nan)
        predicted_NHW = predict(held_out[role].images_NHW)
        measured = case_metrics(predicted_NHW, held_out[role].masks_NHW, spacing_mm)
        # Kept for the report's pictures, and so that other metrics need no new training.
        return measured.assign(predicted=[encode_png(mask_HW) for mask_HW in predicted_NHW])

    training = {
        "segmenter": segmenter,
        "arm": chosen.name,
        "labels": str(chosen.labels),
        "repetition": repetition,
        **images.counts,
    }
    write_per_case(per_case_rows(lesions, _KEPT, training, metrics), out)


def _train(
    config: Config,
    network_config: SegmenterConfig,
    arm: Arm,
    stream: str,
    images: ArmImages,
    held_out: dict[str, LabelledImages],
    state: Path,
) -> nn.Module:
    """Train any network but nnU-Net."""
    settings = config.segmentation.training
    network = build_segmenter(network_config, integer_seed(config.seed, f"{stream} weights"))
    check_image_size(network, network_config, config.image.size_px, settings)
    validation = None
    if settings.validate_every_images:
        validation = _validation(network, held_out["validation"], settings.validate_every_images)
    train_phases(
        arm,
        lambda phase, count: SegmenterStage(network, phase, images, count),
        settings,
        seed=config.seed,
        stream=stream,
        state=state,
        identity={"segmenter": network_config.model_dump_json(), **images.identity},
        validation=validation,
    )
    return network


def _validation(network: nn.Module, lesions: LabelledImages, every_images: int) -> Validation:
    """Mean Dice on validation lesions during training."""

    def validate() -> ValidationResult:
        dice = case_dice(segment(network, lesions.images_NHW), lesions.masks_NHW)
        return ValidationResult({"dice": float(np.nanmean(dice))})

    return Validation(every_images, validate, better_segmenter)
