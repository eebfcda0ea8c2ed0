"""How alike a set of generated masks is to real masks held out, by what can be measured on them.

Two questions. Could a classifier tell the sets apart, and in which descriptor do they differ? And
is the generator more than a copier: does it cover the real masks, and how many of its masks are
training masks moved, scaled or mirrored?
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
    """Generated masks against real ones held out; see the function behind each number.

    Attributes:
        masks: number of generated masks.
        descriptor_auc: :func:`two_sample_auc`; 0.5 = cannot be told apart, 1 = always.
        network_auc: the same from the pixels, :func:`stdiff.evaluation.mask_network.network_auc`.
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
    """Compare generated masks with real ones held out, and look for copies of training masks.

    Args:
        generated_NHW: any dtype, above zero = lesion; a lesion in each.
        real_NHW: real masks the generator never saw, of the same size in pixels.
        real_groups: patient (or other group) of each real mask.
        training_NHW: the masks the generator was fitted to, of any size.
        seed: of the run.
        network_auc: measured by the caller, for masks know nothing of torch.

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

    A coarser raster leaves its staircase in an outline, and would itself tell the sets apart.
    """
    if generated_NHW.ndim != 3 or generated_NHW.shape[1:] != real_NHW.shape[1:]:
        raise InputError(
            f"generated masks are {generated_NHW.shape}, real ones {real_NHW.shape}; expected "
            "(masks, height, width) with one height and width; resize one set to the other's"
        )


def describe_masks(masks_NHW: np.ndarray) -> pd.DataFrame:
    """Descriptors of the largest lesion of each mask (any dtype, above zero = lesion), a row each.

    All columns are float: ``log_area_fraction``, ``log_aspect``, ``axis_ratio``, ``solidity``,
    ``centre_x`` and ``centre_y`` (centroid), ``compactness``, ``log_curvature_energy`` and
    ``lobulations`` as in :class:`stdiff.birads.shape.Shape`, logarithms natural, NaN for what a
    speck does not tell; ``lesion_count`` of the whole mask; ``touches_border``, 1 where the
    largest lesion reaches the edge of the frame, else 0.

    Raises:
        InputError: a mask holds no lesion.
    """
    return pd.DataFrame(
        [_describe(mask_HW, index) for index, mask_HW in enumerate(masks_NHW)], dtype=float
    )


def two_sample_auc(
    generated: pd.DataFrame, real: pd.DataFrame, real_groups: Sequence[Any], seed: int
) -> float:
    """How well a random forest tells generated from real descriptors: area under the ROC curve.

    A classifier two-sample test (Lopez-Paz and Oquab 2017, arXiv 1610.06545): 0.5 = cannot be
    told apart, 1 = always. Scores are pooled over :func:`grouped_folds`, each mask scored by a
    forest that saw neither it nor another mask of its patient. Values a speck lacks are filled
    with the median of the forest's own training rows. Tables are those of :func:`describe_masks`,
    or any others of equal columns; ``real_groups`` names the patient of each real mask.

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
    """Labels (N,) int, 0 for generated masks, then 1 for real ones, and folds to test them in.

    Each of the :data:`FOLDS` folds is (indices to train on, indices to test on) with about the
    same share of real masks; no group of real masks is on both sides. Generated masks are a group
    each. Real masks whose group is None or NaN are one group together.

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
        raise InputError(f"{len(real_groups)} groups for {real} real masks; give one a mask")
    patients, codes = np.unique(np.asarray(real_groups, dtype=str), return_inverse=True)
    if len(patients) < FOLDS:
        raise InputError(
            f"real masks are of {len(patients)} patients or groups; {FOLDS} folds need at least "
            f"{FOLDS}; hold out more"
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
    A column in which real masks do not vary stays in its own units; missing values are left out,
    and a column without any value on a side is NaN.
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
    standardised by the real masks (missing values: the real median). Density, >= 0, is how many
    balls a generated mask lies in, over ``neighbours``: about 1 for the same distribution, more
    where generated masks crowd among usual real ones. Coverage, in [0, 1], is the share of balls
    with a generated mask in them; for the same distribution and as many masks on both sides about
    1 - 2**-neighbours. It grows with the number of generated masks.

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
    # A mask is its own nearest neighbour, which does not count.
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


def _sklearn_seed(seed: int, purpose: str, *index: int) -> int:
    """scikit-learn takes 32 bits."""
    return integer_seed(seed, purpose, *index) % 2**32
