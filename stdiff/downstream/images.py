"""Decoded cases, held in memory: what an arm is trained on, and what it is tested on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

from stdiff.downstream.arms import Arm
from stdiff.downstream.classes import CLASSES, Target, classes_of
from stdiff.runtime.files import InputError, sha256_bytes
from stdiff.table.accepted import list_accepted
from stdiff.table.cases import images_of
from stdiff.table.cohort import Cohort


@dataclass(frozen=True)
class LabelledImages:
    """Images with masks, and what each weighs in the loss."""

    images_NHW: np.ndarray  # uint8
    masks_NHW: np.ndarray  # uint8, 0 or 255
    weights_N: np.ndarray | None = None  # float32, of mean 1; None = all alike
    classes_N: np.ndarray | None = None  # int64, of a classifier's target

    def __len__(self) -> int:
        return len(self.images_NHW)

    @property
    def weights(self) -> np.ndarray:
        """The weights (N,), float32."""
        return np.ones(len(self), np.float32) if self.weights_N is None else self.weights_N

    @property
    def sha256(self) -> str:
        """Hash of all pixels, weights and classes."""
        others = [b"" if of is None else of.tobytes() for of in (self.weights_N, self.classes_N)]
        return sha256_bytes(
            b"".join([self.images_NHW.tobytes(), self.masks_NHW.tobytes(), *others])
        )


@dataclass(frozen=True)
class ArmImages:
    """All images of an arm."""

    real: LabelledImages
    synthetic: LabelledImages | None  # seen with their masks
    unlabelled_NHW: np.ndarray | None  # uint8, seen without
    unlabelled_synthetic: int = 0  # of these
    # The real cases among them: seen with their masks, and without.
    labelled_cases: tuple[str, ...] = ()
    unlabelled_cases: tuple[str, ...] = ()

    @property
    def identity(self) -> dict[str, str]:
        """Hashes of all that is seen."""
        unlabelled = self.unlabelled_NHW
        return {
            "real": self.real.sha256,
            "synthetic": self.synthetic.sha256 if self.synthetic else "none",
            "unlabelled": "none" if unlabelled is None else sha256_bytes(unlabelled.tobytes()),
        }

    @property
    def counts(self) -> dict[str, int]:
        """Numbers of images, as columns of the per-case table."""
        unlabelled = 0 if self.unlabelled_NHW is None else len(self.unlabelled_NHW)
        synthetic = len(self.synthetic) if self.synthetic else 0
        return {
            "training_real": len(self.real),
            # Those of an arm that sees them both ways are the same.
            "training_synthetic": max(synthetic, self.unlabelled_synthetic),
            "training_real_unlabelled": unlabelled - self.unlabelled_synthetic,
        }


def images_of_arm(
    arm: Arm,
    cohort: Cohort,
    corpus: Sequence[Path],
    size_px: int,
    target: Target | None = None,
) -> ArmImages:
    """Decode what an arm is trained on.

    Args:
        arm: See :class:`stdiff.downstream.arms.Arm`.
        cohort: Real cases and their splits.
        corpus: Case tables of synthetic images, read only if the arm uses any. Of the images that
            the filter accepted the first are taken, as many as the arm's ratio says.
        size_px: Side of all images.
        target: What a classifier is to tell apart: only cases whose class is known are taken, of
            the corpus too.

    Raises:
        InputError: no labelled case, or fewer than two classes of the target; no corpus or one
            that is too small for the arm, or images of another size.
    """
    labelled = cohort.labelled_training(arm.labels)
    if target:
        labelled = of_known_class(labelled, target, f"labelled training case of arm {arm}")
    real = labelled_images(labelled, size_px, target)
    synthetic = None
    if arm.config.uses_corpus:
        synthetic = _accepted_rows(arm, corpus, len(real), target)
    beyond = cohort.training()
    beyond = beyond[~beyond["case_id"].isin(labelled["case_id"])]
    beyond = beyond if "training" in arm.config.without_masks else beyond.iloc[:0]
    unmasked = synthetic if "corpus" in arm.config.without_masks else None
    return ArmImages(
        real,
        None if arm.config.kind == "unlabelled" else _weighted(synthetic, arm, size_px, target),
        _without_masks(arm, [rows for rows in (unmasked, beyond) if rows is not None], size_px),
        0 if unmasked is None else len(unmasked),
        () if arm.config.kind == "synthetic" else tuple(labelled["case_id"]),
        tuple(beyond["case_id"]),
    )


def _without_masks(arm: Arm, tables: Sequence[pd.DataFrame], size_px: int) -> np.ndarray | None:
    """Images (N, H, W) uint8 of the rows; None for an arm that takes none."""
    if not arm.config.without_masks:
        return None
    rows = pd.concat(tables, ignore_index=True)
    if rows.empty:
        raise InputError(
            f"arm {arm}: no training image is left without a label at {arm.labels}; name "
            "the corpus too, e.g. unlabelled: [corpus, training], or take fewer labels"
        )
    _refuse_other_sizes(rows, size_px)
    return images_of(rows["image"])


def labelled_images(
    cases: pd.DataFrame, size_px: int, target: Target | None = None
) -> LabelledImages:
    """Images and masks of case rows that have both, and their classes if a target is given.

    Raises:
        InputError: a row lacks one of them or is not ``size_px`` square.
    """
    _refuse_other_sizes(cases, size_px, "mask")
    classes = classes_of(cases, target) if target else None
    return LabelledImages(images_of(cases["image"]), images_of(cases["mask"]), None, classes)


def of_known_class(cases: pd.DataFrame, target: Target, what: str) -> pd.DataFrame:
    """The case rows with a class of this target.

    Raises:
        InputError: fewer than two of its classes are there: nothing to tell apart.
    """
    classes = classes_of(cases, target)
    there = {CLASSES[target][c] for c in classes[classes >= 0]}
    if len(there) < 2:
        absent = ", ".join(name for name in CLASSES[target] if name not in there)
        raise InputError(
            f"{target}: no {what} is {absent} ({len(cases)} cases, {int((classes >= 0).sum())} "
            "with a known class); take more labels, fewer folds or a collection that has "
            "them, or leave the target out of classification.targets"
        )
    return cases[classes >= 0].reset_index(drop=True)


def _accepted_rows(
    arm: Arm, corpus: Sequence[Path], real: int, target: Target | None
) -> pd.DataFrame:
    """The first accepted rows of the corpus, as many as the arm takes."""
    if not corpus:
        raise InputError(
            f"arm {arm} takes images of a corpus, but no corpus is given; name its shards, or "
            "choose an arm of kind real"
        )
    found = list_accepted(corpus)
    accepted, count = found.listed, found.count
    if target:
        accepted = accepted[classes_of(accepted, target) >= 0]
    accepted = accepted.sort_values(["sample_index", "case_id"], ignore_index=True)
    ratio = arm.config.ratio
    wanted = len(accepted) if ratio is None else max(1, round(ratio * real))
    if wanted > len(accepted):
        raise InputError(
            f"arm {arm} takes {ratio:g} x {real} = {wanted} synthetic images, but the corpus has "
            f"{len(accepted)} accepted ones of {count.made}; raise corpus.count to about "
            f"{-(-wanted * count.made // len(accepted))}, or lower "
            f"segmentation.arms.{arm.name}.ratio"
        )
    return found.rows(accepted.head(wanted))


def _weighted(
    rows: pd.DataFrame | None, arm: Arm, size_px: int, target: Target | None
) -> LabelledImages | None:
    if rows is None:
        return None
    images = labelled_images(rows, size_px, target)
    if not arm.config.weighted:
        return images
    scores = [None if cell is None else cell["mask_dice"] for cell in rows["filter"]]
    agreement = np.array([np.nan if s is None else s for s in scores], np.float32)
    if np.isnan(agreement).any() or not agreement.any():
        raise InputError(
            f"arm {arm} is weighted, but {int(np.isnan(agreement).sum())} of its "
            f"{len(agreement)} synthetic images have no mask agreement; run `stdiff filter apply` "
            "on the corpus, or leave weighted out"
        )
    return replace(images, weights_N=agreement / agreement.mean())


def _refuse_other_sizes(cases: pd.DataFrame, size_px: int, *needed: str) -> None:
    lacking = cases[["image", *needed]].isna().any(axis=1)
    problems = [
        f"{case.case_id}: {case.width_px} x {case.height_px} px"
        for case in cases.itertuples()
        if (case.height_px, case.width_px) != (size_px, size_px)
    ] + [f"{name}: no {' or '.join(['image', *needed])}" for name in cases["case_id"][lacking]]
    if problems:
        raise InputError(
            f"{len(problems)} of {len(cases)} cases are no image of {size_px} x {size_px} px to "
            f"train or test on ({'; '.join(problems[:5])}); make the table with image.size_px: "
            f"{size_px}"
        )
