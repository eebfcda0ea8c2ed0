"""Are generated images copies of training images?

The likeness of two images is their normalised cross-correlation at 64 px, mirrored copies included
(:mod:`stdiff.filtering.nearest`). All ultrasound frames are alike, so a correlation means little by
itself; the reference is how much real test images, which the generator never saw, resemble
training images.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from stdiff.filtering.nearest import nearest_training


def evaluate_memorisation(
    generated_NHW: np.ndarray, test_NHW: np.ndarray, training_NHW: np.ndarray
) -> dict[str, Any]:
    """Correlation with the nearest training image: of generated images, and of real test images.

    Returns:
        ``training_images``; ``generated_to_training`` and ``test_to_training``, each with
        ``images``, ``p50`` and ``p99``; and ``generated_above_test_p99``, the fraction of
        generated images nearer to a training image than 99 % of real test images are (0.01 is
        expected of images as new as those).
    """
    _, generated = nearest_training(generated_NHW, training_NHW)
    _, test = nearest_training(test_NHW, training_NHW)
    return {
        "training_images": len(training_NHW),
        "generated_to_training": _percentiles(generated),
        "test_to_training": _percentiles(test),
        "generated_above_test_p99": float(np.mean(generated > np.percentile(test, 99))),
    }


def _percentiles(correlation: np.ndarray) -> dict[str, float]:
    p50, p99 = np.percentile(correlation, [50, 99])
    return {"images": len(correlation), "p50": float(p50), "p99": float(p99)}
