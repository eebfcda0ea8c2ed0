"""The interface of mask sources, and elastic deformation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from scipy import ndimage

from stdiff.birads.lexicon import Findings


@dataclass(frozen=True)
class SampledMask:
    """A new mask and its description.

    Attributes:
        mask: (height, width) uint8, 0 or 255, with at least one lesion pixel.
        findings: the terms of its caption.
        mask_origin: ``curvature``, ``ellipse``, or ``bank:<case_id>;<changes>``.
    """

    mask: np.ndarray
    findings: Findings
    mask_origin: str


class MaskSource(Protocol):
    """Draws masks; each depends on the state of the generator alone."""

    def sample(self, rng: np.random.Generator) -> SampledMask:
        """Draw one mask."""
        ...


def as_mask(lesion_HW: np.ndarray) -> np.ndarray:
    """A boolean array as a mask of 0 and 255."""
    return lesion_HW.astype(np.uint8) * 255


def elastic_displacement(
    shape: tuple[int, int], amplitude_px: float, smoothness_px: float, rng: np.random.Generator
) -> np.ndarray:
    """A smooth random displacement of every pixel (Simard et al. 2003).

    Args:
        shape: (height, width) in pixels.
        amplitude_px: root mean square of each component.
        smoothness_px: standard deviation of the Gaussian that smooths white noise, at least 1.
        rng: source of the noise.

    Returns:
        (2, height, width) float64: displacement along y and x, in pixels.
    """
    noise_2HW = rng.standard_normal((2, *shape))
    sigma = max(smoothness_px, 1.0)
    smooth_2HW = ndimage.gaussian_filter(noise_2HW, (0, sigma, sigma), mode="wrap")
    rms = np.sqrt((smooth_2HW**2).mean(axis=(1, 2), keepdims=True))
    return smooth_2HW * (amplitude_px / rms)


def resample(mask_HW: np.ndarray, source_2HW: np.ndarray) -> np.ndarray:
    """The mask at fractional (y, x) positions, by nearest neighbour.

    Positions outside the image give the nearest border pixel: a lesion cut by it stays cut.
    """
    return ndimage.map_coordinates(mask_HW, source_2HW, order=0, mode="nearest")


def equivalent_diameter_px(mask_HW: np.ndarray) -> float:
    """Diameter of the circle with the area of the mask's lesion pixels."""
    return float(2 * np.sqrt(np.count_nonzero(mask_HW) / np.pi))
