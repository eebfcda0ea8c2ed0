"""Realism of generated masks: comparison of their descriptors with those of held-out real masks.

Measured are how well a classifier distinguishes the sets, the distance of each descriptor, coverage
of the real masks, and the share of near-copies of training masks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy.spatial import cKDTree
from scipy.stats import energy_distance
from sklearn.ensemble import RandomForestClassifier
from sklearn.impute import SimpleImputer
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedGroupKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from stdiff.birads.shape import measure_lesion, touches_border
from stdiff.masks.copies import lesion_of, near_copies
from stdiff.runtime.files import InputError
from stdiff.runtime.randomness import integer_seed

FOLDS = 5
_TREES, _LEAF = 300, 3


@dataclass(frozen=True)
class Realism:
    """Generated compared with held-out real masks; see the function of each number.

    Attributes:
        masks: number of generated masks.
        descriptor_auc: :func:`two_sample_auc`; 0.5 = indistinguishable.
        network_auc: likewise, from pixels, :func:`stdiff.evaluation.mask_network.network_auc`.
        energy_distances: by descriptor, :func:`energy_distances`; 0 = same distribution.
        density: :func:`density_coverage`; about 1 for the same distribution.
        coverage: likewise, in [0, 1].
        near_copies: share of generated masks that copy a training mask, :func:`near_copies`.
    """

    masks: int
    descriptor_auc: float
    network_auc: float
    energy_distances: dict[str, float]
    density: float
    coverage: float
    near_copies: float


def realism(
    generated_NHW: np.ndarray,
    real_NHW: np.ndarray,
    real_groups: Sequence[Any],
    training_NHW: np.ndarray,
    seed: int,
    network_auc: float,
) -> Realism:
    """Compare generated with held-out real masks, and count copies of training masks.

    Args:
        generated_NHW: any dtype, above zero = lesion; a lesion in each.
        real_NHW: real masks that the generator was not fitted to, of the same size in pixels.
        real_groups: patient (or other group) of each real mask.
        training_NHW: the masks the generator was fitted to, of any size.
        seed: of the run.
        network_auc: measured by the caller, so that this module need not import torch.

    Raises:
        InputError: masks of different sizes, without a lesion, or too few; too few groups.
    """
    check_sizes(generated_NHW, real_NHW)
    generated, real = describe_masks(generated_NHW), describe_masks(real_NHW)
    density, coverage = density_coverage(generated, real)
    return Realism(
        masks=len(generated_NHW),
        descriptor_auc=two_sample_auc(generated, real, real_groups, seed),
        network_auc=network_auc,
        energy_distances=energy_distances(generated, real),
        density=density,
        coverage=coverage,
        near_copies=near_copies(generated_NHW, training_NHW),
    )


def check_sizes(generated_NHW: np.ndarray, real_NHW: np.ndarray) -> None:
    """Raise an InputError unless both sets are stacks of masks of one size in pixels.

    Different pixel sizes would by themselves distinguish the sets.
    """
    if generated_NHW.ndim != 3 or generated_NHW.shape[1:] != real_NHW.shape[1:]:
        raise InputError(
            f"generated masks are {generated_NHW.shape}, real ones {real_NHW.shape}; expected "
            "(masks, height, width) with one height and width; resize one set to the other's"
        )


def describe_masks(masks_NHW: np.ndarray) -> pd.DataFrame:
    """Descriptors of the largest lesion of each mask (any dtype, above zero = lesion), a row each.

    All columns are float: measures of :class:`stdiff.birads.shape.Shape` (``log_``: natural
    logarithm; ``centre_x``, ``centre_y``: centroid; NaN for the outline of a speck);
    ``lesion_count`` of the whole mask; ``touches_border``, 1 or 0, of the largest lesion.

    Raises:
        InputError: a mask holds no lesion.
    """
    return pd.DataFrame(
        [_describe(mask_HW, index) for index, mask_HW in enumerate(masks_NHW)], dtype=float
    )


def two_sample_auc(
    generated: pd.DataFrame, real: pd.DataFrame, real_groups: Sequence[Any], seed: int
) -> float:
    """Area under the ROC curve of a random forest that classifies descriptors as generated or real.

    A classifier two-sample test (Lopez-Paz and Oquab 2017, arXiv 1610.06545): 0.5 =
    indistinguishable, 1 = always distinguished. Scores are pooled over :func:`grouped_folds`: no
    forest scores a mask of a patient it was trained on. Missing values become the median of the
    training rows. Tables have equal columns; ``real_groups`` names the patient of each real mask.

    Raises:
        InputError: too few masks or groups, see :func:`grouped_folds`.
    """
    labels_N, folds = grouped_folds(len(generated), len(real), real_groups, seed)
    values_ND = np.concatenate([generated[real.columns].to_numpy(float), real.to_numpy(float)])
    scores_N = np.zeros(len(labels_N))
    for fold, (train, test) in enumerate(folds):
        forest_seed = _sklearn_seed(seed, "mask forest", fold)
        forest = make_pipeline(
            SimpleImputer(strategy="median", keep_empty_features=True),
            RandomForestClassifier(_TREES, min_samples_leaf=_LEAF, random_state=forest_seed),
        ).fit(values_ND[train], labels_N[train])
        scores_N[test] = forest.predict_proba(values_ND[test])[:, 1]
    return float(roc_auc_score(labels_N, scores_N))


def grouped_folds(
    generated: int, real: int, real_groups: Sequence[Any], seed: int
) -> tuple[np.ndarray, list[tuple[np.ndarray, np.ndarray]]]:
    """Labels (N,) int, 0 for generated masks, then 1 for real ones, and cross-validation folds.

    Each of the :data:`FOLDS` folds is (indices to train on, indices to test on) with about the
    same share of real masks; no group of real masks is on both sides. Each generated mask is a
    group. Real masks whose group is None or NaN form one group.

    Raises:
        InputError: fewer than 2 * :data:`FOLDS` masks on a side, a number of groups other than
            that of real masks, or fewer different groups than folds.
    """
    if min(generated, real) < 2 * FOLDS:
        raise InputError(
            f"{generated} generated and {real} real masks; {FOLDS} folds need at least "
            f"{2 * FOLDS} of each; generate or hold out more"
        )
    if len(real_groups) != real:
        raise InputError(f"{len(real_groups)} groups for {real} real masks; give one for each")
    patients, codes = np.unique(np.asarray(real_groups, dtype=str), return_inverse=True)
    if len(patients) < FOLDS:
        raise InputError(
            f"real masks are of {len(patients)} patients; {FOLDS} folds need at least {FOLDS}; "
            "hold out more"
        )
    labels_N = np.repeat([0, 1], [generated, real])
    groups_N = np.concatenate([np.arange(generated), generated + codes])
    splitter = StratifiedGroupKFold(
        FOLDS, shuffle=True, random_state=_sklearn_seed(seed, "mask folds")
    )
    return labels_N, list(splitter.split(labels_N, labels_N, groups_N))


def energy_distances(generated: pd.DataFrame, real: pd.DataFrame) -> dict[str, float]:
    """Energy distance (Székely and Rizzo 2013) of each descriptor, in real standard deviations.

    0 for the same distribution; about 0.73 for a normal one moved by one standard deviation.
    A column that is constant in real masks keeps its units. Missing values are left out; a column
    without any value on a side is NaN.
    """
    scales = StandardScaler().fit(real.to_numpy(float)).scale_
    distances = {}
    for column, scale in zip(real.columns, scales, strict=True):
        sides = [table[column].dropna().to_numpy(float) / scale for table in (generated, real)]
        known = all(len(side) for side in sides)
        distances[str(column)] = float(energy_distance(*sides)) if known else float("nan")
    return distances


def density_coverage(
    generated: pd.DataFrame, real: pd.DataFrame, neighbours: int = 5
) -> tuple[float, float]:
    """Density and coverage (Naeem et al. 2020, arXiv 2002.09797).

    The ball of a real mask reaches to its ``neighbours``-th nearest real mask, in descriptors
    standardised by the real masks (missing values: the real median). Density, >= 0, is the mean
    number of balls around a generated mask over ``neighbours``: about 1 for the same distribution,
    more where generated masks cluster among typical real ones. Coverage, in [0, 1], is the share of
    balls that hold a generated mask; it grows with the number of generated masks, and is about
    1 - 2**-neighbours for the same distribution and equally many masks on both sides.

    Raises:
        InputError: no generated mask, or not more than ``neighbours`` real ones.
    """
    if not len(generated) or len(real) <= neighbours:
        raise InputError(
            f"{len(generated)} generated and {len(real)} real masks; density and coverage with "
            f"{neighbours} neighbours need at least 1 and {neighbours + 1}; use more masks"
        )
    standard = make_pipeline(
        SimpleImputer(strategy="median", keep_empty_features=True), StandardScaler()
    ).fit(real.to_numpy(float))
    real_ND = standard.transform(real.to_numpy(float))
    generated_ND = standard.transform(generated[real.columns].to_numpy(float))
    # One more: each mask is its own nearest neighbour.
    radius_N = cKDTree(real_ND).query(real_ND, neighbours + 1)[0][:, -1]
    within_N = cKDTree(generated_ND).query_ball_point(real_ND, radius_N, return_length=True)
    return float(within_N.sum() / (neighbours * len(generated))), float((within_N > 0).mean())


def _describe(mask_HW: np.ndarray, index: int) -> dict[str, float | None]:
    """A row of :func:`describe_masks`; `index` is for the error."""
    lesion_HW, count = lesion_of(mask_HW, index)
    found = measure_lesion(lesion_HW)
    energy = found.curvature_energy
    return {
        "log_area_fraction": np.log(found.area_fraction),
        "log_aspect": np.log(found.aspect),
        "axis_ratio": found.axis_ratio,
        "solidity": found.solidity,
        "centre_x": found.centroid[0],
        "centre_y": found.centroid[1],
        "compactness": found.compactness,
        "log_curvature_energy": None if energy is None else np.log(energy),
        "lobulations": found.lobulations,
        "lesion_count": count,
        "touches_border": float(touches_border(lesion_HW)),
    }


def _sklearn_seed(seed: int, stream: str, *index: int) -> int:
    """A seed of 32 bits, the most that scikit-learn takes."""
    return integer_seed(seed, stream, *index) % 2**32
