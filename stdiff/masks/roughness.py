"""The roughness of an outline: the spectrum of its curvature; margins as events along the arc.

The outline is first stretched to equal axes: an ellipse becomes a circle of curvature 1. The rest
is κ(s) − 1 = Σ c_k e^{2πiks}, k >= 3 (order 1 is fixed by closure, order 2 by equal axes). On
real lesions |c_k| hardly falls with k, so a few bands of orders describe it; phases are random.

Margins (ACR BI-RADS Atlas, 5th ed.) add corners, short waves or spikes.
"""

from __future__ import annotations

import numpy as np

from stdiff.birads.curve import POINTS, curvature_series, with_equal_axes

# Orders of the bands (first, last + 1), from coarse shape through lobes to detail.
BANDS = ((3, 4), (4, 5), (5, 7), (7, 10), (10, 15), (15, 23), (23, 36))
NAMES = tuple(
    f"roughness_{first}" + (f"_to_{stop - 1}" if stop - first > 1 else "") for first, stop in BANDS
)
_MIN_ROUGHNESS = 1e-3

_HIGHEST = BANDS[-1][1]
# Beyond the last band the spectrum falls off like a Gaussian of this width, in orders.
_FALL_OFF_ORDERS = 20.0
# An outline traced through pixels is blurred twice, across its edge and along it, each with this
# standard deviation (:mod:`stdiff.birads.outline`). The blur is undone up to a factor of ten.
_BLUR_PX = 1.5
_MIN_DAMPING = 0.1
# Log-normal envelope of low order: one side of a lesion is rougher than the other. It gives the
# curvature of generated outlines tails nearly as heavy as on real ones.
_UNEVENNESS, _UNEVEN_ORDERS = 0.3, 3

_ARC = np.arange(POINTS) / POINTS
_LOW_WAVES = (_UNEVENNESS / np.sqrt(_UNEVEN_ORDERS)) * np.concatenate(
    [
        wave(2 * np.pi * np.outer(np.arange(1, _UNEVEN_ORDERS + 1), _ARC))
        for wave in (np.cos, np.sin)
    ]
)
_ORDERS = np.arange(_HIGHEST)


def roughness(outline_px: np.ndarray) -> np.ndarray:
    """(7,) root mean square of |c_k| over each of :data:`BANDS`.

    Args:
        outline_px: (N,) complex, in pixels, see :func:`stdiff.birads.outline.subpixel_outline`.
    """
    blur = _BLUR_PX / np.abs(np.diff(outline_px, append=outline_px[:1])).sum()
    series = curvature_series(with_equal_axes(outline_px), blur)[:_HIGHEST]
    damping = np.exp(-4 * (np.pi * _ORDERS * blur) ** 2)
    magnitude = np.abs(series) / np.maximum(damping, _MIN_DAMPING)
    bands = [np.sqrt((magnitude[first:stop] ** 2).mean()) for first, stop in BANDS]
    return np.maximum(bands, _MIN_ROUGHNESS)


def random_curvature(bands: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """(512,) curvature along the arc (2π for a circle) with a given :func:`roughness`.

    Amplitudes and phases within a band are random, with the given root mean square.
    """
    series = np.zeros(POINTS // 2 + 1, dtype=complex)
    for (first, stop), level in zip(BANDS, bands, strict=True):
        noise = _complex_normal(stop - first, rng)
        series[first:stop] = level * noise / np.sqrt((np.abs(noise) ** 2).mean())
    beyond = np.arange(_HIGHEST)
    fall_off = np.exp(-0.5 * (beyond / _FALL_OFF_ORDERS) ** 2)
    series[_HIGHEST : 2 * _HIGHEST] = bands[-1] * fall_off * _complex_normal(_HIGHEST, rng)
    departure = np.fft.irfft(series, POINTS) * POINTS
    uneven = departure * np.exp(rng.standard_normal(2 * _UNEVEN_ORDERS) @ _LOW_WAVES)
    uneven -= uneven.mean()
    return 2 * np.pi * (1 + uneven * (departure.std() / uneven.std()))


def with_margin(curvature: np.ndarray, margin: str, rng: np.random.Generator) -> np.ndarray:
    """The curvature with the events of a margin; unchanged for margins without events.

    * angular: 3-5 corners make up most of the full turn; the sides between are nearly straight;
    * microlobulated: 8-11 short waves, a cosine of a slightly uneven phase;
    * spiculated: 9-13 spikes, each a tip of 2.5-3.1 radians and half of that back at both feet;
      the farther the feet, the longer the spike.
    """
    if margin == "angular":
        share = rng.uniform(0.7, 0.9)
        corners = rng.integers(3, 6)
        turns = rng.dirichlet(np.full(corners, 12.0)) * 2 * np.pi * share
        sides = 2 * np.pi + 0.25 * (curvature - 2 * np.pi)
        return (1 - share) * sides + _spikes(_spread(corners, rng), turns, 0.008)
    if margin == "microlobulated":
        waves = rng.integers(8, 12)
        phase = waves * _ARC + 0.15 * np.sin(2 * np.pi * (_ARC + rng.random()))
        height = 2 * np.pi * rng.uniform(4.5, 6.5)
        return curvature + height * np.cos(2 * np.pi * (phase + rng.random()))
    if margin == "spiculated":
        spikes = rng.integers(9, 14)
        tips, turns = _spread(spikes, rng), rng.uniform(2.5, 3.1, spikes)
        reach = rng.uniform(0.016, 0.04, spikes)
        feet = _spikes(tips - reach, turns / 2, 0.006) + _spikes(tips + reach, turns / 2, 0.006)
        return curvature + _spikes(tips, turns, 0.006) - feet
    return curvature


def _spread(count: int, rng: np.random.Generator) -> np.ndarray:
    """Positions along the arc, roughly evenly spaced."""
    return (np.arange(count) + rng.uniform(-0.25, 0.25, count)) / count + rng.random()


def _spikes(positions: np.ndarray, turns: np.ndarray, width: float) -> np.ndarray:
    """(512,) curvature that turns the tangent by `turns` radians at each position."""
    away = (_ARC - positions[:, None] + 0.5) % 1 - 0.5
    bumps = np.exp(-0.5 * (away / width) ** 2)
    return (turns[:, None] * bumps / bumps.sum(axis=1, keepdims=True)).sum(axis=0) * POINTS


def _complex_normal(count: int, rng: np.random.Generator) -> np.ndarray:
    """Complex normal numbers with E|x|² = 1."""
    real, imaginary = rng.standard_normal((2, count)) / np.sqrt(2)
    return real + 1j * imaginary
