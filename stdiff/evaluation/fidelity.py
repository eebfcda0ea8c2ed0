"""Distance of generated to real images: KID and Fréchet distance of encoder features.

Each is reported with the number of images, the encoder and two floors: real training against real
test images, and two disjoint halves of the real test images. The Fréchet distance is not called
FID, because FID implies Inception features.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from stdiff.config.evaluation import EvaluationConfig
from stdiff.runtime.files import InputError
from stdiff.runtime.randomness import generator


def kid(
    features_a: np.ndarray,
    features_b: np.ndarray,
    subset_size: int,
    subsets: int,
    rng: np.random.Generator,
) -> tuple[float, float, float]:
    """Kernel inception distance of features (N, D): mean, 2.5th and 97.5th percentile over subsets.

    The unbiased estimate of the squared maximum mean discrepancy with the kernel
    k(x, y) = (x·y / D + 1)³, averaged over random subsets (Binkowski et al. 2018,
    arXiv 1801.01401, section 4). It may be negative. The percentiles describe the variation
    between subsets; they are not a confidence interval of the mean.

    Raises:
        InputError: a subset is larger than one of the sets.
    """
    smallest = min(len(features_a), len(features_b))
    if subset_size > smallest:
        raise InputError(
            f"evaluation.kid_subset_size {subset_size} is larger than the smaller set of images "
            f"({smallest}); set kid_subset_size: {smallest} or less, or use more images"
        )
    features_a, features_b = features_a.astype(np.float64), features_b.astype(np.float64)
    estimates = [
        _squared_mmd(
            features_a[rng.choice(len(features_a), subset_size, replace=False)],
            features_b[rng.choice(len(features_b), subset_size, replace=False)],
        )
        for _ in range(subsets)
    ]
    low, high = np.percentile(estimates, [2.5, 97.5])
    return float(np.mean(estimates)), float(low), float(high)


def frechet_distance(features_a: np.ndarray, features_b: np.ndarray) -> float:
    """Fréchet distance between Gaussians fitted to features (N, D).

    |m_a - m_b|² + tr(C_a + C_b - 2 (C_a C_b)^½) (Heusel et al. 2017, arXiv 1706.08500). Biased
    upwards for small N; see :func:`rank_deficient`.
    """
    means = features_a.mean(axis=0, dtype=np.float64), features_b.mean(axis=0, dtype=np.float64)
    covariance_a = np.atleast_2d(np.cov(features_a, rowvar=False, dtype=np.float64))
    covariance_b = np.atleast_2d(np.cov(features_b, rowvar=False, dtype=np.float64))
    # tr (C_a C_b)^½ = tr (R C_b R)^½ with R = C_a^½: symmetric, so its eigenvalues are real.
    values, vectors = np.linalg.eigh(covariance_a)
    root_a = (vectors * np.sqrt(values.clip(0))) @ vectors.T
    trace = np.sqrt(np.linalg.eigvalsh(root_a @ covariance_b @ root_a).clip(0)).sum()
    spread = np.trace(covariance_a) + np.trace(covariance_b) - 2 * trace
    return float(np.sum((means[0] - means[1]) ** 2) + spread)


def rank_deficient(features_a: np.ndarray, features_b: np.ndarray) -> bool:
    """Whether a set has too few images (N < D + 1) for a covariance of full rank."""
    return min(len(features_a), len(features_b)) < features_a.shape[1] + 1


def evaluate_fidelity(
    generated: np.ndarray,
    training: np.ndarray,
    training_groups: np.ndarray,
    test: np.ndarray,
    test_groups: np.ndarray,
    *,
    encoder: str,
    settings: EvaluationConfig,
    seed: int,
) -> list[dict[str, Any]]:
    """Distances of generated to real test images and the two floors, as records.

    Args:
        generated: Features (N, D) of generated images.
        training: Features (N, D) of real training images; at most as many as generated ones are
            used, drawn by whole groups.
        training_groups: Group of each training image.
        test: Features (N, D) of real test images.
        test_groups: Group of each test image; no group is in both halves.
        encoder: Name of the encoder.
        settings: Size and number of KID subsets.
        seed: The run's seed.

    If the encoder was trained on the training images, the first floor includes its overfitting.
    Keys: ``comparison``, ``encoder``, ``n_a``, ``n_b``, ``kid``, ``kid_low``, ``kid_high``,
    ``kid_subset_size``, ``frechet_distance``, ``rank_deficient``.

    Raises:
        InputError: a KID subset is larger than one of the sets.
    """
    drawn = _whole_groups(training_groups, len(generated), generator(seed, "fidelity floor"))
    half, other_half = halves_of_test(test_groups, seed)
    comparisons = {
        "generated vs real test": (generated, test),
        "floor: real training vs real test": (training[drawn], test),
        "floor: two halves of real test": (test[half], test[other_half]),
    }
    records = []
    for comparison, (a, b) in comparisons.items():
        rng = generator(seed, f"KID {comparison}")
        mean, low, high = kid(a, b, settings.kid_subset_size, settings.kid_subsets, rng)
        records.append(
            {"comparison": comparison, "encoder": encoder, "n_a": len(a), "n_b": len(b)}
            | {"kid": mean, "kid_low": low, "kid_high": high}
            | {"kid_subset_size": settings.kid_subset_size}
            | {"frechet_distance": frechet_distance(a, b), "rank_deficient": rank_deficient(a, b)}
        )
    return records


def halves_of_test(groups: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Indices of the two halves of the test images that a run of this seed compares."""
    return disjoint_halves(np.asarray(groups), generator(seed, "fidelity halves"))


def disjoint_halves(groups: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Indices of two random halves of the images that share no group.

    The rest of a group cut by the middle is in neither half.
    """
    half = _whole_groups(groups, len(groups) // 2, rng)
    return half, np.flatnonzero(~np.isin(groups, groups[half]))


def _squared_mmd(x_ND: np.ndarray, y_ND: np.ndarray) -> float:
    count, width = x_ND.shape
    within_x = (x_ND @ x_ND.T / width + 1) ** 3
    within_y = (y_ND @ y_ND.T / width + 1) ** 3
    across = (x_ND @ y_ND.T / width + 1) ** 3
    within = within_x.sum() - np.trace(within_x) + within_y.sum() - np.trace(within_y)
    return within / (count * (count - 1)) - 2 * across.mean()


def _whole_groups(groups: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """Sorted indices of the first ``count`` images with the groups in random order."""
    _, codes = np.unique(np.asarray(groups, dtype=str), return_inverse=True)
    place = rng.permutation(codes.max() + 1)[codes]
    return np.sort(np.argsort(place, kind="stable")[:count])
