"""Closed curves: from curvature to points, from points to moments, from points to a mask.

A curve is a complex array (N,), x + iy, y downwards; its last point is followed by its first.
"""

from __future__ import annotations

import numpy as np

POINTS = 512

_ORDERS = np.fft.fftfreq(POINTS, 1 / POINTS)
_TURN = 2 * np.pi * np.arange(POINTS) / POINTS
_FIRST_HARMONIC = np.stack([np.cos(_TURN), np.sin(_TURN)])
# Integrates a Fourier series term by term, without its mean.
_INTEGRAL = np.where(_ORDERS == 0, 0, 1 / (2j * np.pi * np.where(_ORDERS == 0, 1, _ORDERS)))
# From integrals over the step between two points to values at the points.
_STEP_TO_POINT = np.exp(-1j * np.pi * _ORDERS / POINTS) / np.sinc(_ORDERS / POINTS)
_NEWTON_STEPS = 20
_CLOSED = 1e-10


def closed_curve(curvature: np.ndarray) -> np.ndarray | None:
    """The closed curve of unit length whose curvature is nearest to the given one.

    The tangent angle is θ(s) = 2πs + ∫(κ − mean κ) ds, one full turn, and the curve z(s) = ∫ e^{iθ}
    ds (Zahn and Roskies 1972). It is closed if ∫₀¹ e^{iθ} ds = 0. These two equations are solved by
    adding α cos 2πs + β sin 2πs to θ, with Newton's method.

    Args:
        curvature: (512,) at evenly spaced points of the arc; 2π for a circle.

    Returns:
        (512,) complex, evenly spaced along the arc; None if Newton's method does not converge.
    """
    theta = _TURN + np.fft.ifft(np.fft.fft(curvature) * _INTEGRAL).real
    for _ in range(_NEWTON_STEPS):
        tangent = np.exp(1j * theta)
        gap = tangent.mean()
        if abs(gap) < _CLOSED:
            return np.fft.ifft(np.fft.fft(tangent) * _INTEGRAL)
        along, across = (1j * tangent * _FIRST_HARMONIC).mean(axis=1)
        determinant = (along.conjugate() * across).imag
        if abs(determinant) < 1e-9:
            return None
        step = np.array([-(gap.conjugate() * across).imag, (gap.conjugate() * along).imag])
        step /= determinant
        # At most a radian at a time: a full Newton step from far away overshoots.
        theta = theta + (step / max(1.0, np.abs(step).max())) @ _FIRST_HARMONIC
    return None


def resampled_by_arc_length(curve: np.ndarray, count: int) -> tuple[np.ndarray, float]:
    """(`count` points at equal arc-length steps along a closed polygon, its perimeter)."""
    closed = np.append(curve, curve[0])
    along = np.concatenate([[0.0], np.cumsum(np.abs(np.diff(closed)))])
    return np.interp(np.arange(count) * (along[-1] / count), along, closed), float(along[-1])


def curvature_series(curve: np.ndarray, smoothing: float) -> np.ndarray:
    """(256,) Fourier coefficients of a curve's curvature, in units of a circle's curvature.

    Coefficient k belongs to e^{2πiks} along the arc; a circle has 1, 0, 0, …

    Args:
        curve: any number of points.
        smoothing: standard deviation of the Gaussian blur along the curve, in units of its length.
    """
    points, _ = resampled_by_arc_length(curve, POINTS)
    damping = np.exp(-2 * (np.pi * _ORDERS * smoothing) ** 2)
    slope = np.fft.ifft(np.fft.fft(points) * damping * (2j * np.pi * _ORDERS))
    direction = np.sign(area_moments(points)[0])
    # The turn of the tangent from point to point is at most half a turn, even at the tip of a
    # spike, where the quotient of derivatives is unbounded.
    turns = direction * np.angle(np.roll(slope, -1) * slope.conj())
    return (np.fft.fft(turns) * _STEP_TO_POINT)[: POINTS // 2] / (2 * np.pi)


def enclosed_area(curve: np.ndarray) -> float:
    """Area within a curve (shoelace formula); 0 for a curve folded onto itself."""
    return abs(float((curve.conj() * np.roll(curve, -1)).imag.sum())) / 2


def elongation(covariance_22: np.ndarray) -> tuple[float, float]:
    """ln(long / short axis) times (cos 2φ, sin 2φ); φ is the angle from the x to the long axis.

    (0, 0) for a disc; the first number is > 0 for a lesion wider than tall.
    """
    (xx, xy), (_, yy) = covariance_22
    spread = np.hypot(xx - yy, 2 * xy)
    if spread == 0:
        return 0.0, 0.0
    log_ratio = 0.5 * np.log((xx + yy + spread) / max(xx + yy - spread, 1e-12))
    return float(log_ratio * (xx - yy) / spread), float(log_ratio * 2 * xy / spread)


def with_equal_axes(curve: np.ndarray) -> np.ndarray:
    """The curve moved to centroid 0 and stretched to equal axes, its area unchanged."""
    _, centre, covariance_22 = area_moments(curve)
    values, vectors = np.linalg.eigh(covariance_22)
    values = np.maximum(values, 1e-12)
    # The inverse root of the covariance, scaled to determinant 1.
    inverse_root_22 = vectors @ np.diag((values / np.sqrt(values.prod())) ** -0.5) @ vectors.T
    return _mapped(curve - centre, inverse_root_22)


def with_area_and_axes(
    curve: np.ndarray, area: float, elongation_2: tuple[float, float], centre: complex
) -> np.ndarray:
    """A curve of :func:`with_equal_axes`, given an area, an :func:`elongation` and a centre."""
    log_ratio = np.hypot(*elongation_2)
    half_angle = 0.5 * np.arctan2(elongation_2[1], elongation_2[0])
    cos, sin = np.cos(half_angle), np.sin(half_angle)
    turn_22 = np.array([[cos, -sin], [sin, cos]])
    axes_22 = np.diag([np.exp(log_ratio / 2), np.exp(-log_ratio / 2)])
    scale = np.sqrt(area / abs(area_moments(curve)[0]))
    return _mapped(curve, scale * (turn_22 @ axes_22 @ turn_22.T)) + centre


def rasterised(curve: np.ndarray, height_px: int, width_px: int) -> np.ndarray | None:
    """(height, width) bool: pixels whose centre lies within; None if the curve crosses itself.

    A curve that does not cross itself has winding numbers of pixel centres of 0 and 1, or 0 and -1.

    Args:
        curve: in pixels; pixel (row, column) covers [column, column + 1) x [row, row + 1).
        height_px, width_px: the image; whatever lies outside is cut off.
    """
    x, y = curve.real - 0.5, curve.imag - 0.5
    next_x, next_y = np.roll(x, -1), np.roll(y, -1)
    first = np.clip(np.ceil(np.minimum(y, next_y)), 0, height_px).astype(int)
    last = np.clip(np.ceil(np.maximum(y, next_y)), 0, height_px).astype(int)
    rows_of_side = last - first
    side = np.repeat(np.arange(len(curve)), rows_of_side)
    lesion_HW = np.zeros((height_px, width_px), dtype=bool)
    if not side.size:
        return lesion_HW
    row = (
        first[side]
        + np.arange(len(side))
        - np.repeat(np.cumsum(rows_of_side) - rows_of_side, rows_of_side)
    )
    across = x[side] + (row - y[side]) * (next_x[side] - x[side]) / (next_y[side] - y[side])
    column = np.clip(np.ceil(across), 0, width_px).astype(int)
    top, left = row.min(), column.min()
    height, width = row.max() - top + 1, column.max() - left + 1
    steps = np.bincount(
        (row - top) * width + column - left,
        weights=np.sign(next_y - y)[side],
        minlength=height * width,
    )
    winding = np.cumsum(steps.reshape(height, width), axis=1)[:, :-1]
    if winding.size:
        low, high = winding.min(), winding.max()
        if high - low > 1 or low * high < 0 or max(high, -low) > 1:
            return None
        lesion_HW[top : top + height, left : left + width - 1] = winding != 0
    return lesion_HW


def area_moments(curve: np.ndarray) -> tuple[float, complex, np.ndarray]:
    """Signed area, centroid, and (2, 2) covariance of the area within (Green's theorem).

    The area is positive for a curve that runs from +x to +y.
    """
    origin = curve.mean()
    x, y = (curve - origin).real, (curve - origin).imag
    next_x, next_y = np.roll(x, -1), np.roll(y, -1)
    cross = x * next_y - next_x * y
    area = float(cross.sum()) / 2
    centre_x = float(((x + next_x) * cross).sum()) / (6 * area)
    centre_y = float(((y + next_y) * cross).sum()) / (6 * area)
    xx = float(((x * x + x * next_x + next_x * next_x) * cross).sum()) / (12 * area)
    yy = float(((y * y + y * next_y + next_y * next_y) * cross).sum()) / (12 * area)
    mixed = x * next_y + 2 * x * y + 2 * next_x * next_y + next_x * y
    xy = float((mixed * cross).sum()) / (24 * area)
    covariance_22 = np.array([[xx, xy], [xy, yy]]) - np.outer(
        (centre_x, centre_y), (centre_x, centre_y)
    )
    return area, complex(origin) + complex(centre_x, centre_y), covariance_22


def _mapped(curve: np.ndarray, map_22: np.ndarray) -> np.ndarray:
    x, y = map_22 @ np.stack([curve.real, curve.imag])
    return x + 1j * y
