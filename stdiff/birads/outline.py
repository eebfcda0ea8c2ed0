"""The outline of a lesion as one smooth closed curve, and what it tells.

Every number is the same whatever the pixel size, as long as the lesion has pixels enough.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np

from stdiff.birads.curve import enclosed_area, evenly_spaced

# A dent counts as the notch between two lobes from this depth on, in units of sqrt(area).
NOTCH_DEPTH = 0.01

_POINTS = 256
_ORDERS = np.fft.fftfreq(_POINTS, 1 / _POINTS)
_COSINES, _SINES = (f(np.arange(_POINTS) * (2 * np.pi / _POINTS)) for f in (np.cos, np.sin))
# Standard deviation of the Gaussian that smooths the outline, in units of its length: a hundredth
# keeps spicules and small lobes, which make the margin; more leaves the course, which is the shape.
# Never less than what the staircase of pixels needs.
_SMOOTHING, _COURSE_SMOOTHING = 0.01, 0.025
_STAIRCASE_PX = 1.5
# Flatter than this, in units of the curvature of a circle of equal length, is a straight side.
_STRAIGHT = 0.4


@dataclass(frozen=True)
class Outline:
    """What a smooth closed outline tells; see :class:`stdiff.birads.shape.Shape` for the first two.

    Attributes:
        compactness: in (0, 1].
        curvature_energy: >= 1.
        lobulations: notches, that is, concave stretches deeper than :data:`NOTCH_DEPTH` below the
            chord between their ends; as many bulges lie between them.
        course_energy: the curvature energy once margin detail is smoothed away.
        straight_fraction: part of the length that is straight, in [0, 1].
    """

    compactness: float
    curvature_energy: float
    lobulations: int
    course_energy: float
    straight_fraction: float


def edge_of(lesion_HW: np.ndarray) -> np.ndarray:
    """(N, 2) x and y of the pixels along the edge of one lesion (uint8), in order."""
    contours, _ = cv2.findContours(lesion_HW, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    return contours[0][:, 0]


def traced(edge_N2: np.ndarray, lesion_HW: np.ndarray) -> np.ndarray:
    """(N,) complex x + iy in pixels (pixel centres are whole): the edge without its staircase."""
    return _sub_pixel(edge_N2, lesion_HW) @ np.array([1, 1j])


def outline_of(lesion_HW: np.ndarray, edge_N2: np.ndarray) -> Outline:
    """Measures of a lesion's outline after smoothing over a hundredth of its length.

    Points are spaced evenly along the outline, and their Fourier series (Zahn and Roskies 1972,
    Kuhl and Giardina 1982) is damped like a Gaussian blur; its derivatives are exact.

    Args:
        lesion_HW: (height, width) uint8, 0 or 1, at least 3 pixels each way.
        edge_N2: its :func:`edge_of`.
    """
    points, length_px = evenly_spaced(traced(edge_N2, lesion_HW), _POINTS)
    series = np.fft.fft(points)
    curve, speed, curvature = _smoothed(series, max(_SMOOTHING, _STAIRCASE_PX / length_px))
    _, *course = _smoothed(series, max(_COURSE_SMOOTHING, _STAIRCASE_PX / length_px))
    perimeter_px = float(speed.mean())
    area_px2 = enclosed_area(curve)
    relative = np.abs(curvature) * (perimeter_px / (2 * np.pi))
    return Outline(
        compactness=4 * np.pi * area_px2 / perimeter_px**2,
        curvature_energy=_energy(speed, curvature),
        lobulations=_notches(curve, curvature < 0, NOTCH_DEPTH * np.sqrt(area_px2)),
        course_energy=_energy(*course),
        straight_fraction=float(speed[relative < _STRAIGHT].sum() / speed.sum()),
    )


def _smoothed(series: np.ndarray, sigma: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(curve, speed, curvature) of a Fourier series blurred over `sigma` of the outline.

    The speed is in pixels a turn; the curvature, in 1/pixels, is positive where the outline
    bulges, whichever way round it runs.
    """
    damped = series * np.exp(-2 * (np.pi * _ORDERS * sigma) ** 2)
    turn = 2j * np.pi * _ORDERS
    curve, slope, bend = np.fft.ifft([damped, damped * turn, damped * turn**2])
    speed = np.abs(slope)
    way = np.sign((curve.conj() * slope).imag.mean())
    return curve, speed, way * (slope.conj() * bend).imag / np.maximum(speed, 1e-9) ** 3


def _energy(speed: np.ndarray, curvature: np.ndarray) -> float:
    """perimeter / (4 pi^2) times the integral of the squared curvature along the outline."""
    return float(speed.mean() * (curvature**2 * speed).mean()) / (4 * np.pi**2)


@lru_cache(maxsize=64)
def ellipse_bending(axis_ratio: float) -> float:
    """Curvature energy of an ellipse of this axis ratio; 1 for a circle, more the slimmer.

    Speed and curvature along (cos t, r sin t) are v = sqrt(sin^2 t + r^2 cos^2 t) and r / v^3.
    """
    speed = np.sqrt(_SINES**2 + (axis_ratio * _COSINES) ** 2)
    return float((axis_ratio**2 / speed**5).mean() * speed.mean())


def _sub_pixel(edge_N2: np.ndarray, lesion: np.ndarray) -> np.ndarray:
    """(N, 2) float: pixels of the edge moved to where the blurred lesion falls to one half.

    The edge's own pixels are a staircase, whose steps would bend more than a small lesion does.
    """
    border = 4
    soft = cv2.copyMakeBorder(lesion, *[border] * 4, cv2.BORDER_CONSTANT).astype(np.float32)
    soft = cv2.GaussianBlur(soft, (0, 0), _STAIRCASE_PX)
    x, y = edge_N2.T + border
    slope_N2 = np.stack([soft[y, x + 1] - soft[y, x - 1], soft[y + 1, x] - soft[y - 1, x]], axis=1)
    slope_N2 /= 2
    steepness = np.maximum((slope_N2**2).sum(axis=1), 1e-3)
    return edge_N2 - np.clip(((soft[y, x] - 0.5) / steepness)[:, None] * slope_N2, -1, 1)


def _notches(curve: np.ndarray, concave: np.ndarray, depth_px: float) -> int:
    """Concave stretches of a closed curve that are deeper than a depth below their chord."""
    turns = np.flatnonzero(concave != np.roll(concave, 1))
    if not turns.size:
        return 0
    if not concave[turns[0]]:  # begin where a dent begins
        turns = np.roll(turns, -1)
    count = 0
    for first, last in turns.reshape(-1, 2).tolist():
        dent = curve[first:last] if first < last else np.append(curve[first:], curve[:last])
        start, chord = curve[first - 1], curve[last] - curve[first - 1]
        depth = np.abs(((dent - start) * chord.conjugate()).imag).max()
        count += bool(depth > depth_px * max(abs(chord), 1e-9))
    return count
