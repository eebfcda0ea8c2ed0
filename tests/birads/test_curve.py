import numpy as np
import pytest
from drawn_masks import SEEDS, examples
from hypothesis import given
from hypothesis import strategies as st

from stdiff.birads.curve import (
    POINTS,
    area_moments,
    closed_curve,
    curvature_series,
    elongation,
    rasterised,
    with_area_and_axes,
    with_equal_axes,
)

ARC = np.arange(POINTS) / POINTS
TURN = np.exp(2j * np.pi * ARC)
LOG_RATIOS = st.floats(-0.8, 0.8)


@st.composite
def curvatures(draw):
    """Curvature of orders 1 to 16 about that of a circle, and its Fourier coefficients."""
    rng = np.random.default_rng(draw(SEEDS))
    series = np.zeros(17, dtype=complex)
    orders = np.arange(1, 17)
    levels = draw(st.floats(0, 0.35)) * rng.random(16)
    series[1:] = levels * np.exp(2j * np.pi * rng.random(16))
    waves = 2 * (series[1:, None] * np.exp(2j * np.pi * orders[:, None] * ARC)).real.sum(axis=0)
    return 2 * np.pi * (1 + waves), series


@st.composite
def stars(draw):
    """A polygon about a point, seen from which its corners follow each other: no crossings."""
    rng = np.random.default_rng(draw(SEEDS))
    corners = draw(st.integers(5, 40))
    angles = 2 * np.pi * (np.arange(corners) + rng.uniform(-0.4, 0.4, corners)) / corners
    radii = rng.uniform(3, draw(st.floats(5, 30)), corners)
    return radii * np.exp(1j * angles) + complex(*rng.uniform(-5, 50, 2))


def polygon_ellipse(a, b, centre=0j):
    return a * np.cos(2 * np.pi * ARC) + 1j * b * np.sin(2 * np.pi * ARC) + centre


def speed(curve):
    """Of a closed curve; one that was forced to end where it began runs unevenly."""
    orders = np.fft.fftfreq(POINTS, 1 / POINTS)
    return np.abs(np.fft.ifft(np.fft.fft(curve) * 2j * np.pi * orders))


def within(polygon, height, width):
    """Pixels whose centre sees the polygon go round it: the sum of the angles of its sides."""
    y, x = np.mgrid[:height, :width] + 0.5
    corners = polygon[:, None, None] - (x + 1j * y)
    angles = np.angle(np.roll(corners, -1, axis=0) / corners)
    return np.abs(angles.sum(axis=0)) > np.pi


def test_constant_curvature_makes_a_circle():
    for level in (2 * np.pi, 0.0, 50.0):  # the mean is that of one full turn, whatever is given
        curve = closed_curve(np.full(POINTS, level))
        assert np.abs(curve - curve.mean()) == pytest.approx(1 / (2 * np.pi), abs=1e-12)
    area, _, covariance = area_moments(curve)
    assert area == pytest.approx(1 / (4 * np.pi), rel=1e-4)
    assert elongation(covariance) == pytest.approx((0, 0), abs=1e-9)


@given(curvatures())
@examples(60)
def test_a_curve_is_closed_and_evenly_spaced(drawn):
    curvature, _ = drawn
    curve = closed_curve(curvature)
    assert speed(curve) == pytest.approx(1, abs=1e-9)
    # Chords are shorter than their arcs, as much as they bend; that back to the start, too.
    chords = np.diff(curve, append=curve[:1]) * POINTS
    bends = np.angle(np.roll(chords, -1) / chords)
    assert np.abs(chords).max() <= 1 + 1e-9
    assert np.abs(chords).min() >= 1 - (1.2 * np.abs(bends).max()) ** 2 / 24


@given(curvatures())
@examples(60)
def test_the_curvature_is_measured_back(drawn):
    curvature, series = drawn
    curve = closed_curve(curvature)
    found = curvature_series(curve, smoothing=0)
    # Order 1 is what closes the curve; all others are as given.
    assert found.shape == (POINTS // 2,)
    assert found[0] == pytest.approx(1, abs=0.01)
    assert np.abs(found[2:17] - series[2:]).max() < 0.02
    assert np.abs(found[17:60]).max() < 0.02


def test_the_curvature_depends_on_no_place_size_side_or_direction():
    rng = np.random.default_rng(4)
    waves = sum(0.3 * np.cos(2 * np.pi * (k * ARC + rng.random())) for k in (3, 7))
    curve = closed_curve(2 * np.pi * (1 + waves))
    found = np.abs(curvature_series(curve, 0.005))
    for other in (30 * curve + 7 - 2j, curve * np.exp(1j), curve.conj(), curve[::-1]):
        assert np.abs(curvature_series(other, 0.005)) == pytest.approx(found, abs=1e-3)
    # A blur of x and y by s damps order k by exp(-2 (pi k s)^2); curvature of order 12 on a circle
    # is order 13 and -11 of x + iy.
    flat = closed_curve(2 * np.pi * (1 + 0.02 * np.cos(2 * np.pi * 12 * ARC)))
    damping = abs(curvature_series(flat, 0.02)[12] / curvature_series(flat, 0)[12])
    low, high = (np.exp(-2 * (np.pi * order * 0.02) ** 2) for order in (13, 11))
    assert low < damping < high


def test_a_curve_is_closed_or_none_however_wildly_it_turns():
    orders, lost = np.arange(1, 9)[:, None], 0
    for seed in range(100):
        rng = np.random.default_rng(seed)
        heights, phases = rng.uniform(0, 30) * rng.standard_normal((8, 1)), rng.random((8, 1))
        waves = (heights * np.cos(2 * np.pi * (orders * ARC + phases))).sum(axis=0)
        curve = closed_curve(2 * np.pi * (1 + waves))
        lost += curve is None
        assert curve is None or speed(curve) == pytest.approx(1, abs=1e-6)
    assert 0 < lost < 50
    assert closed_curve(np.full(POINTS, np.nan)) is None


@given(st.floats(3, 40), st.floats(3, 40), SEEDS)
@examples(60)
def test_the_axes_of_an_ellipse(a, b, seed):
    turn, centre = np.random.default_rng(seed).uniform(-50, 50, 2)
    curve = polygon_ellipse(a, b) * np.exp(1j * turn) + centre * (1 + 2j)
    area, middle, covariance = area_moments(curve)
    assert area == pytest.approx(np.pi * a * b, rel=1e-3)
    assert middle == pytest.approx(centre * (1 + 2j), abs=1e-6)
    # The variance along a semi-axis is a quarter of its square.
    assert np.linalg.eigvalsh(covariance) == pytest.approx(
        np.sort([a * a / 4, b * b / 4]), rel=1e-3
    )
    wide = np.log(a / b) * np.exp(2j * turn)
    assert elongation(covariance) == pytest.approx((wide.real, wide.imag), abs=1e-3)


@given(stars())
@examples(60)
def test_a_rounded_curve_has_equal_axes_and_its_area(curve):
    area, centre, covariance = area_moments(with_equal_axes(curve))
    assert area == pytest.approx(area_moments(curve)[0], rel=1e-9)
    assert abs(centre) < 1e-6
    (xx, xy), (yx, yy) = covariance
    assert xx == pytest.approx(yy, rel=1e-6)
    assert xy == yx == pytest.approx(0, abs=1e-6 * xx)
    assert elongation(covariance) == pytest.approx((0, 0), abs=1e-6)


@given(stars(), st.floats(1, 5000), LOG_RATIOS, LOG_RATIOS, SEEDS)
@examples(80)
def test_a_stretched_curve_has_the_given_area_axes_and_centre(curve, area, wide, slant, seed):
    centre = complex(*np.random.default_rng(seed).uniform(-100, 100, 2))
    found_area, found_centre, covariance = area_moments(
        with_area_and_axes(with_equal_axes(curve), area, (wide, slant), centre)
    )
    assert found_area == pytest.approx(area, rel=1e-6)
    assert found_centre == pytest.approx(centre, abs=1e-6)
    assert elongation(covariance) == pytest.approx((wide, slant), abs=1e-6)


@given(st.floats(3, 30), st.floats(3, 30), SEEDS)
@examples(80)
def test_an_ellipse_is_filled_up_to_half_a_pixel_along_its_outline(a, b, seed):
    turn, x0, y0 = np.random.default_rng(seed).uniform((0, 32, 32), (np.pi, 38, 38))
    for semi_axes in ((a, b), (a, a)):
        curve = polygon_ellipse(*semi_axes) * np.exp(1j * turn) + complex(x0, y0)
        area, perimeter = area_moments(curve)[0], np.abs(np.diff(curve)).sum()
        mask = rasterised(curve, 70, 70)
        assert mask.dtype == np.bool_ and mask.shape == (70, 70)
        assert abs(mask.sum() - area) <= perimeter / 2
        assert np.array_equal(rasterised(curve[::-1], 70, 70), mask)


@given(stars())
@examples(80)
def test_a_pixel_is_filled_if_its_centre_lies_within(polygon):
    assert np.array_equal(rasterised(polygon, 40, 48), within(polygon, 40, 48))


@given(stars(), st.integers(1, 30), st.integers(1, 30))
@examples(60)
def test_what_lies_outside_the_image_is_cut_off(polygon, above, left):
    larger = rasterised(polygon + complex(left, above), 40 + above + 25, 48 + left + 25)
    cut = rasterised(polygon, 40, 48)
    assert np.array_equal(cut, larger[above : above + 40, left : left + 48])


def test_a_curve_beside_the_image_or_between_pixels_fills_nothing():
    for centre in (-50 + 20j, 90 + 20j, 20 - 50j, 20 + 90j, -50 - 50j):
        assert not rasterised(polygon_ellipse(20, 10, centre), 40, 48).any()
    assert not rasterised(polygon_ellipse(0.3, 0.3, 20 + 20j), 40, 48).any()
    assert rasterised(polygon_ellipse(500, 500), 40, 48).all()


def test_pixels_of_two_neighbours_neither_overlap_nor_leave_a_gap():
    # Sides that run through pixel centres.
    left = np.array([4.5 + 4.5j, 12.5 + 4.5j, 12.5 + 20.5j, 4.5 + 20.5j])
    first, second = rasterised(left, 40, 48), rasterised(left + 8, 40, 48)
    assert first.sum() == second.sum() == 8 * 16
    assert not (first & second).any()


@pytest.mark.parametrize("direction", [1, -1])
def test_a_curve_that_crosses_itself_or_runs_round_twice_is_none(direction):
    eight = 30 + 20j + 18 * TURN.imag + 9j * (TURN**2).imag
    looped = 30 + 20j + (1 + 2 * TURN.real) * TURN * 6  # a limaçon with an inner loop
    twice = 30 + 20j + 12 * TURN**2
    for curve in (eight, looped, twice):
        assert rasterised(curve[::direction], 40, 60) is None
    assert rasterised((30 + 20j + 12 * TURN)[::direction], 40, 60).any()
