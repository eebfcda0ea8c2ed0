import numpy as np
import pytest
from drawn_masks import SIZE, corners, ellipse, examples, lesions, lobes, polar, spikes
from hypothesis import example, given
from hypothesis import strategies as st

from stdiff.birads.outline import ellipse_energy
from stdiff.birads.shape import (
    MIN_AREA_PX,
    count_lesions,
    largest_and_count,
    largest_lesion,
    measure,
)


@given(st.floats(3, 25), st.floats(3, 25), st.floats(26, 38), st.floats(26, 38))
@examples(80)
def test_an_ellipse_is_measured_as_it_was_drawn(a, b, x0, y0):
    found = measure(ellipse(a, b, x0, y0))
    assert found.area_fraction == pytest.approx(np.pi * a * b / SIZE**2, rel=0.25)
    assert found.aspect == pytest.approx(b / a, rel=0.2)
    assert found.solidity > 0.99
    assert found.shape == ("round" if found.axis_ratio > 0.85 else "oval")
    assert found.centroid == pytest.approx((x0 / SIZE, y0 / SIZE), abs=0.01)
    if not 0.8 < b / a < 1.25:
        assert found.orientation == ("parallel" if a > b else "not parallel")


def test_a_star_is_irregular_and_a_slanted_line_can_be_measured():
    star = ellipse(28, 3) | ellipse(3, 28)
    assert measure(star).shape == "irregular"
    assert measure(np.eye(9, dtype=np.uint8)).solidity == 1.0
    assert measure(ellipse(0.8, 0.8, 5.5, 5.5)).area_fraction == 1 / SIZE**2


def test_only_the_largest_lesion_is_measured():
    large, small = ellipse(10, 5, 20, 20), ellipse(2, 6, 50, 50)
    assert count_lesions(large | small) == 2
    assert np.array_equal(largest_lesion(large | small), large > 0)
    assert measure(large | small) == measure(large)


def test_an_empty_mask_has_no_shape():
    with pytest.raises(ValueError, match="no lesion"):
        measure(np.zeros((8, 8), np.uint8))


SPICULATED, LOBED, HEXAGON = polar(spikes), polar(lobes), polar(corners)
KIDNEY = polar(lambda t: 1 - 0.45 * np.exp(-((t / 0.5) ** 2)))
DISC = polar(np.ones_like)


def test_a_disc_is_the_unit_of_the_outline():
    for scale in (10, 30, 80):
        found = measure(polar(np.ones_like, scale=scale))
        assert found.compactness == pytest.approx(1, abs=0.01)
        assert found.curvature_energy == pytest.approx(1, abs=0.1)
        assert (found.lobulations, found.shape, found.margin) == (0, "round", "circumscribed")


def test_an_ellipse_bends_as_its_formula_says():
    found = measure(ellipse(90, 45, 120, 120, 240, 240))
    # Ramanujan's perimeter of a 2:1 ellipse.
    perimeter = np.pi * (3 * 135 - np.sqrt((3 * 90 + 45) * (90 + 3 * 45)))
    assert found.compactness == pytest.approx(4 * np.pi**2 * 90 * 45 / perimeter**2, rel=0.01)
    assert found.curvature_energy == pytest.approx(ellipse_energy(0.5), rel=0.05)
    assert ellipse_energy(1) == pytest.approx(1)


@pytest.mark.parametrize(
    ("mask", "shape", "margin", "lobulations"),
    [
        (DISC, "round", "circumscribed", 0),
        (KIDNEY, None, None, 1),
        (LOBED, "irregular", "microlobulated", 10),
        (SPICULATED, "irregular", "spiculated", 12),
        (HEXAGON, None, "angular", 0),
    ],
    ids=["disc", "kidney", "lobed", "spiculated", "hexagon"],
)
def test_outlines_are_distinguished(mask, shape, margin, lobulations):
    found = measure(mask)
    assert found.lobulations == lobulations
    assert shape is None or found.shape == shape
    assert margin is None or found.margin == margin


def test_spikes_bend_more_and_fill_less_than_lobes_and_lobes_than_a_disc():
    smooth, lobed, spiky = map(measure, (DISC, LOBED, SPICULATED))
    assert smooth.curvature_energy < lobed.curvature_energy < spiky.curvature_energy
    assert smooth.compactness > lobed.compactness > spiky.compactness
    assert smooth.solidity > lobed.solidity > spiky.solidity


OUTLINE = ("solidity", "compactness", "curvature_energy", "axis_ratio")


@given(
    st.integers(2, 4), st.floats(0, 0.12), st.floats(0.5, 1), st.floats(0, 3), st.integers(35, 60)
)
@example(order=2, depth=0.064453125, ratio=0.5, phase=0.0625, scale=35)
@examples(60)
def test_the_outline_depends_on_neither_side_nor_place_nor_size(order, depth, ratio, phase, scale):
    def radius(t):
        flat = ratio / np.hypot(ratio * np.cos(t), np.sin(t))
        return flat * (1 + depth * np.cos(order * t + phase))

    mask = polar(radius, scale=scale)
    found = measure(mask)
    moved = np.roll(mask, (9, -11), (0, 1))
    for other in (mask[:, ::-1], mask[::-1], np.rot90(mask), moved):
        turned = measure(other)
        for name in OUTLINE:
            assert getattr(turned, name) == pytest.approx(getattr(found, name), rel=0.02), name
    assert measure(np.rot90(mask)).aspect == pytest.approx(1 / found.aspect, rel=1e-6)
    finer = measure(polar(radius, size=480, scale=2 * scale))
    # What is left of the pixels' staircase bends a little more the coarser they are. Both long
    # sides of a slim lesion, where flat, can lie up to half a pixel off, which is up to 3 % of
    # its short semi-axis (ellipse of equal area and axes) here.
    short_px = np.sqrt(np.count_nonzero(mask) * found.axis_ratio / np.pi)
    tolerances = {"curvature_energy": 0.2, "axis_ratio": 0.5 / short_px}
    for name in OUTLINE:
        rel = tolerances.get(name, 0.02)
        assert getattr(finer, name) == pytest.approx(getattr(found, name), rel=rel), name


@given(lesions())
@examples(120)
def test_measures_stay_within_their_ranges(mask):
    found = measure(mask)
    assert 0 < found.area_fraction <= 1 and 0 < found.solidity <= 1
    assert 0 < found.axis_ratio <= 1 and found.aspect > 0
    if np.count_nonzero(largest_lesion(mask)) < MIN_AREA_PX:
        assert found.compactness is found.curvature_energy is found.lobulations is None
    elif found.compactness is not None:
        assert 0 < found.compactness <= 1 + 1e-9
        assert found.curvature_energy >= 1 - 1e-9
        assert found.lobulations >= 0


def test_a_lesion_that_fills_the_mask_can_be_measured():
    found = measure(np.ones((40, 60), np.uint8))
    assert (found.area_fraction, found.solidity, found.orientation) == (1, 1, "parallel")


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), max_size=12, unique=True))
def test_components_counts_separate_blobs(cells):
    mask = np.zeros((60, 60), dtype=bool)
    for row, column in cells:
        mask[10 * row : 10 * row + 4 + row, 10 * column : 10 * column + 4] = True
    largest, count = largest_and_count(mask)
    assert count == len(cells)
    assert largest.sum() == max([4 * (4 + row) for row, _ in cells], default=0)


def test_a_component_inside_the_hole_of_another_is_one_of_its_own():
    ring = ellipse(25, 25) & ~ellipse(15, 15)
    mask = ring | ellipse(8, 8)
    largest, count = largest_and_count(mask)
    assert count == 2
    assert not largest[32, 32] and largest[32, 52]
