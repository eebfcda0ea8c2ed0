"""Are generated images copies of training images?

The similarity of two images is their normalised cross-correlation at 64 px, the larger of the image
and its mirror image (:mod:`stdiff.filtering.nearest`). Ultrasound images resemble each other, so
the reference is the similarity of unseen real test images to training images.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from stdiff.filtering.nearest import nearest_training


def evaluate_memorisation(
    generated_NHW: np.ndarray, test_NHW: np.ndarray, training_NHW: np.ndarray
) -> dict[str, Any]:
    """Correlation of generated and of real test images with their nearest training image.

    Args:
        generated_NHW: Generated images, uint8.
        test_NHW: Real test images, uint8.
        training_NHW: All real training images, uint8.

    Returns:
        ``training_images`` (number); ``generated_to_training`` and ``test_to_training``, each with
        ``images`` (number) and the percentiles ``p50`` and ``p99``; ``generated_above_test_p99``,
        the fraction of generated images above the 99th percentile of test images (0.01 expected
        without memorisation).
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
