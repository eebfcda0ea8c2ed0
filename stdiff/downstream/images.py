"""Decoded images and masks of an arm's training cases and of held-out lesions."""

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
from stdiff.table.label_budget import budget_of_corpus


@dataclass(frozen=True)
class LabelledImages:
    """Images with masks, loss weights and, for a classifier, classes."""

    images_NHW: np.ndarray  # uint8
    masks_NHW: np.ndarray  # uint8, 0 or 255
    weights_N: np.ndarray | None = None  # float32, mean 1; None = all 1
    classes_N: np.ndarray | None = None  # int64, for a classifier

    def __len__(self) -> int:
        return len(self.images_NHW)

    @property
    def weights(self) -> np.ndarray:
        """Loss weights (N,) float32."""
        return np.ones(len(self), np.float32) if self.weights_N is None else self.weights_N

    @property
    def sha256(self) -> str:
        """Hash of all pixels, weights and classes."""
        arrays = (self.images_NHW, self.masks_NHW, self.weights_N, self.classes_N)
        return sha256_bytes(b"".join(b"" if a is None else a.tobytes() for a in arrays))

    def select(self, indices: np.ndarray) -> LabelledImages:
        """The cases at these indices (N,), with explicit weights."""
        classes_N = None if self.classes_N is None else self.classes_N[indices]
        return LabelledImages(
            self.images_NHW[indices], self.masks_NHW[indices], self.weights[indices], classes_N
        )


def concatenated(parts: Sequence[LabelledImages]) -> LabelledImages:
    """The cases of all parts in order; either all parts have classes or none has."""
    classed = parts[0].classes_N is not None
    return LabelledImages(
        np.concatenate([part.images_NHW for part in parts]),
        np.concatenate([part.masks_NHW for part in parts]),
        np.concatenate([part.weights for part in parts]),
        np.concatenate([part.classes_N for part in parts]) if classed else None,
    )


@dataclass(frozen=True)
class ArmImages:
    """All training images of an arm."""

    real: LabelledImages
    synthetic: LabelledImages | None
    unlabelled_NHW: np.ndarray | None  # uint8, used without masks
    unlabelled_synthetic: int = 0  # number of synthetic images among the unlabelled ones
    # Ids of the real cases, used with and without their masks.
    labelled_cases: tuple[str, ...] = ()
    unlabelled_cases: tuple[str, ...] = ()
    # Names of the corpora of the synthetic images, and SHA-256 of the models that made them.
    corpora: tuple[str, ...] = ()
    models: tuple[str, ...] = ()

    @property
    def known(self) -> dict[str, tuple[str, ...]]:
        """What the weights must name, for :mod:`stdiff.evaluation.audit`."""
        return {
            "labels": self.labelled_cases,
            "images": self.unlabelled_cases,
            "corpora": self.corpora,
            "models": self.models,
        }

    @property
    def identity(self) -> dict[str, str]:
        """Hashes of all images."""
        unlabelled = self.unlabelled_NHW
        return {
            "real": self.real.sha256,
            "synthetic": self.synthetic.sha256 if self.synthetic else "none",
            "unlabelled": "none" if unlabelled is None else sha256_bytes(unlabelled.tobytes()),
        }

    @property
    def counts(self) -> dict[str, int]:
        """Numbers of images, by column of the per-case table."""
        unlabelled = 0 if self.unlabelled_NHW is None else len(self.unlabelled_NHW)
        synthetic = len(self.synthetic) if self.synthetic else 0
        return {
            "training_real": len(self.real),
            # An arm that uses them with and without masks uses the same ones.
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
    """Decode the training images of an arm.

    Args:
        arm: The arm and its label budget.
        cohort: Real cases and their splits.
        corpus: Case tables of synthetic images, read only if the arm uses any. The first accepted
            images are used, as many as the arm's ratio requires.
        size_px: Side of all images.
        target: Target of a classifier: real and synthetic cases without a class are left out.

    Raises:
        InputError: no labelled case, fewer than two classes of the target, no corpus, a corpus too
            small for the arm or of another label budget, or images of another size.
    """
    labelled = cohort.labelled_training(arm.labels)
    if target:
        labelled = with_known_class(labelled, target, f"labelled training case of arm {arm}")
    real = labelled_images(labelled, size_px, target)
    synthetic = None
    if arm.config.uses_corpus:
        synthetic = _accepted_rows(arm, corpus, len(real), target)
        _refuse_other_budget(arm, synthetic)
    unlabelled = cohort.training()
    unlabelled = unlabelled[~unlabelled["case_id"].isin(labelled["case_id"])]
    if "training" not in arm.config.without_masks:
        unlabelled = unlabelled.iloc[:0]
    unmasked = synthetic if "corpus" in arm.config.without_masks else None
    return ArmImages(
        real,
        None if arm.config.kind == "unlabelled" else _weighted(synthetic, arm, size_px, target),
        _without_masks(arm, [rows for rows in (unmasked, unlabelled) if rows is not None], size_px),
        0 if unmasked is None else len(unmasked),
        () if arm.config.kind == "synthetic" else tuple(labelled["case_id"]),
        tuple(unlabelled["case_id"]),
        *(_names(synthetic, column) for column in ("collection", "model_sha256")),
    )


def _names(rows: pd.DataFrame | None, column: str) -> tuple[str, ...]:
    """The different values of a column, sorted; "unknown" where there is none."""
    return () if rows is None else tuple(sorted(set(rows[column].fillna("unknown"))))


def _refuse_other_budget(arm: Arm, synthetic: pd.DataFrame) -> None:
    """Refuse a corpus that was made from labels that the arm may not have."""
    for name in _names(synthetic, "collection"):
        if budget_of_corpus(name) not in (None, arm.labels):
            raise InputError(
                f"arm {arm} is given the corpus {name}, whose label budget is "
                f"{budget_of_corpus(name)}; expected one of {arm.labels}: pass the shards in "
                f"labels{arm.labels.slug}/corpus"
            )


def _without_masks(arm: Arm, tables: Sequence[pd.DataFrame], size_px: int) -> np.ndarray | None:
    """Images (N, H, W) uint8 of the rows; None for an arm without unlabelled images."""
    if not arm.config.without_masks:
        return None
    rows = pd.concat(tables, ignore_index=True)
    if rows.empty:
        raise InputError(
            f"arm {arm}: no training image is left without a label at {arm.labels}; add the "
            "corpus, e.g. unlabelled: [corpus, training], or use fewer labels"
        )
    _check_sizes(rows, size_px)
    return images_of(rows["image"])


def labelled_images(
    cases: pd.DataFrame, size_px: int, target: Target | None = None
) -> LabelledImages:
    """Images and masks of case rows, and their classes if a target is given.

    Raises:
        InputError: a row has no image or mask, or is not ``size_px`` square.
    """
    _check_sizes(cases, size_px, "mask")
    classes = classes_of(cases, target) if target else None
    return LabelledImages(images_of(cases["image"]), images_of(cases["mask"]), None, classes)


def with_known_class(cases: pd.DataFrame, target: Target, name: str) -> pd.DataFrame:
    """The case rows with a class of this target.

    Raises:
        InputError: the rows have fewer than two classes; the message calls a row ``name``.
    """
    classes = classes_of(cases, target)
    present = {CLASSES[target][c] for c in classes[classes >= 0]}
    if len(present) < 2:
        absent = ", ".join(c for c in CLASSES[target] if c not in present)
        raise InputError(
            f"{target}: no {name} is {absent} ({len(cases)} cases, {int((classes >= 0).sum())} "
            "with a known class); use more labels, fewer folds or another collection, or remove "
            "the target from classification.targets"
        )
    return cases[classes >= 0].reset_index(drop=True)


def _accepted_rows(
    arm: Arm, corpus: Sequence[Path], real: int, target: Target | None
) -> pd.DataFrame:
    """The first accepted rows of the corpus, as many as the arm uses."""
    if not corpus:
        raise InputError(
            f"arm {arm} uses synthetic images, but no corpus is given; pass its shards or choose "
            "an arm of kind real"
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
            f"arm {arm} needs {ratio:g} x {real} = {wanted} synthetic images, but the corpus has "
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
            "on the corpus, or remove weighted"
        )
    return replace(images, weights_N=agreement / agreement.mean())


def _check_sizes(cases: pd.DataFrame, size_px: int, *required: str) -> None:
    columns = ["image", *required]
    lacking = cases["case_id"][cases[columns].isna().any(axis=1)]
    problems = [
        f"{case.case_id}: {case.width_px} x {case.height_px} px"
        for case in cases.itertuples()
        if (case.height_px, case.width_px) != (size_px, size_px)
    ] + [f"{case_id}: no {' or '.join(columns)}" for case_id in lacking]
    if problems:
        raise InputError(
            f"{len(problems)} of {len(cases)} cases are not images of {size_px} x {size_px} px "
            f"({'; '.join(problems[:5])}); make the table with image.size_px: {size_px}"
        )
