"""The outline of a lesion as one smooth closed curve, and its measures.

Measures do not depend on the pixel size, given enough pixels.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np

from stdiff.birads.curve import enclosed_area, resampled_by_arc_length

# Minimum depth of a notch between two lobes, in units of sqrt(area).
NOTCH_DEPTH = 0.01

_POINTS = 256
_ORDERS = np.fft.fftfreq(_POINTS, 1 / _POINTS)
_COSINES, _SINES = (f(np.arange(_POINTS) * (2 * np.pi / _POINTS)) for f in (np.cos, np.sin))
# Standard deviation of the Gaussian that smooths the outline, in units of its length: a hundredth
# keeps spicules and small lobes (the margin), the coarse one only the shape.
_SMOOTHING, _COARSE_SMOOTHING = 0.01, 0.025
# Minimum standard deviation: less leaves the staircase of pixels.
_STAIRCASE_PX = 1.5
# Sides below this curvature, in units of a circle of equal length, are straight.
_STRAIGHT = 0.4


@dataclass(frozen=True)
class Outline:
    """Measures of a smooth closed outline; the first two as in :class:`stdiff.birads.shape.Shape`.

    Attributes:
        compactness: in (0, 1].
        curvature_energy: >= 1.
        lobulations: number of notches: concave stretches deeper than :data:`NOTCH_DEPTH` below the
            chord between their ends.
        coarse_energy: curvature energy after margin detail is smoothed away.
        straight_fraction: straight part of the length, in [0, 1].
    """

    compactness: float
    curvature_energy: float
    lobulations: int
    coarse_energy: float
    straight_fraction: float


def edge_pixels(lesion_HW: np.ndarray) -> np.ndarray:
    """(N, 2) x and y of the pixels along the edge of one lesion (uint8), in order."""
    contours, _ = cv2.findContours(lesion_HW, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    return contours[0][:, 0]


def subpixel_outline(edge_N2: np.ndarray, lesion_HW: np.ndarray) -> np.ndarray:
    """(N,) complex x + iy in pixels: the edge moved to where the blurred lesion falls to one half.

    Pixel centres have whole coordinates. The edge pixels themselves form a staircase, whose steps
    bend more than the outline of a small lesion.
    """
    border = 4
    soft = cv2.copyMakeBorder(lesion_HW, *[border] * 4, cv2.BORDER_CONSTANT).astype(np.float32)
    soft = cv2.GaussianBlur(soft, (0, 0), _STAIRCASE_PX)
    x, y = edge_N2.T + border
    slope_N2 = np.stack([soft[y, x + 1] - soft[y, x - 1], soft[y + 1, x] - soft[y - 1, x]], axis=1)
    slope_N2 /= 2
    steepness = np.maximum((slope_N2**2).sum(axis=1), 1e-3)
    shift_N2 = np.clip(((soft[y, x] - 0.5) / steepness)[:, None] * slope_N2, -1, 1)
    return (edge_N2 - shift_N2) @ np.array([1, 1j])


def measure_outline(lesion_HW: np.ndarray, edge_N2: np.ndarray) -> Outline:
    """Measures of a lesion's outline after smoothing over a hundredth of its length.

    The Fourier series of evenly spaced points (Zahn and Roskies 1972, Kuhl and Giardina 1982) is
    damped like a Gaussian blur; its derivatives are exact.

    Args:
        lesion_HW: (height, width) uint8, 0 or 1, at least 3 pixels each way.
        edge_N2: its :func:`edge_pixels`.
    """
    points, length_px = resampled_by_arc_length(subpixel_outline(edge_N2, lesion_HW), _POINTS)
    series = np.fft.fft(points)
    curve, speed, curvature = _smoothed(series, max(_SMOOTHING, _STAIRCASE_PX / length_px))
    _, *coarse = _smoothed(series, max(_COARSE_SMOOTHING, _STAIRCASE_PX / length_px))
    perimeter_px = float(speed.mean())
    area_px2 = enclosed_area(curve)
    relative = np.abs(curvature) * (perimeter_px / (2 * np.pi))
    return Outline(
        compactness=4 * np.pi * area_px2 / perimeter_px**2,
        curvature_energy=_energy(speed, curvature),
        lobulations=_notches(curve, curvature < 0, NOTCH_DEPTH * np.sqrt(area_px2)),
        coarse_energy=_energy(*coarse),
        straight_fraction=float(speed[relative < _STRAIGHT].sum() / speed.sum()),
    )


def _smoothed(series: np.ndarray, sigma: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(curve, speed, curvature) of a Fourier series after a blur by `sigma` of the length.

    Speed: pixels per turn. Curvature: 1/pixel, positive where the outline bulges.
    """
    damped = series * np.exp(-2 * (np.pi * _ORDERS * sigma) ** 2)
    turn = 2j * np.pi * _ORDERS
    curve, slope, bend = np.fft.ifft([damped, damped * turn, damped * turn**2])
    speed = np.abs(slope)
    direction = np.sign((curve.conj() * slope).imag.mean())
    return curve, speed, direction * (slope.conj() * bend).imag / np.maximum(speed, 1e-9) ** 3


def _energy(speed: np.ndarray, curvature: np.ndarray) -> float:
    """perimeter / (4 pi^2) times the integral of the squared curvature along the outline."""
    return float(speed.mean() * (curvature**2 * speed).mean()) / (4 * np.pi**2)


@lru_cache(maxsize=64)
def ellipse_energy(axis_ratio: float) -> float:
    """Curvature energy of an ellipse of this axis ratio, >= 1; 1 for a circle.

    Speed and curvature along (cos t, r sin t) are v = sqrt(sin^2 t + r^2 cos^2 t) and r / v^3.
    """
    speed = np.sqrt(_SINES**2 + (axis_ratio * _COSINES) ** 2)
    return float((axis_ratio**2 / speed**5).mean() * speed.mean())


def _notches(curve: np.ndarray, concave: np.ndarray, depth_px: float) -> int:
    """Number of concave stretches of a closed curve that reach deeper than a depth."""
    turns = np.flatnonzero(concave != np.roll(concave, 1))
    if not turns.size:
        return 0
    if not concave[turns[0]]:  # begin with the start of a dent
        turns = np.roll(turns, -1)
    count = 0
    for first, last in turns.reshape(-1, 2).tolist():
        dent = curve[first:last] if first < last else np.append(curve[first:], curve[:last])
        start, chord = curve[first - 1], curve[last] - curve[first - 1]
        depth = np.abs(((dent - start) * chord.conjugate()).imag).max()
        count += bool(depth > depth_px * max(abs(chord), 1e-9))
    return count
