"""The simulator: findings one can measure in the pixels, equal bytes for equal seeds."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import binary_erosion, gaussian_filter
from scipy.ndimage import distance_transform_edt as distance

from stdiff.birads.lexicon import (
    CALCIFICATIONS,
    ECHO_PATTERNS,
    MARGINS,
    ORIENTATIONS,
    POSTERIOR_FEATURES,
    SHAPES,
    Findings,
)
from stdiff.runtime.files import InputError
from stdiff.simulation.findings import histology_of, random_findings
from stdiff.simulation.image import simulate_image

SIZE_PX = 128
PLAIN = Findings(
    pathology="benign",
    birads="3",
    shape="oval",
    orientation="parallel",
    margin=("circumscribed",),
    echo_pattern="hypoechoic",
    posterior_features="no posterior features",
    calcifications="none",
)

any_findings = st.builds(
    Findings,
    pathology=st.sampled_from(["benign", "malignant", None]),
    shape=st.sampled_from([*SHAPES, None]),
    orientation=st.sampled_from([*ORIENTATIONS, None]),
    margin=st.lists(st.sampled_from(MARGINS), max_size=3, unique=True).map(tuple),
    echo_pattern=st.sampled_from([*ECHO_PATTERNS, None]),
    posterior_features=st.sampled_from([*POSTERIOR_FEATURES, None]),
    calcifications=st.sampled_from([*CALCIFICATIONS, None]),
)


def images(count=20, **terms):
    return [simulate_image(seed, replace(PLAIN, **terms), SIZE_PX) for seed in range(count)]


def lesion_box(phantom):
    z, x = np.nonzero(phantom.mask_HW)
    return x.min(), z.min(), x.max() + 1, z.max() + 1


def column_beneath(phantom):
    """Mean grey beneath the lesion less that of its neighbours at equal depth."""
    left, _, right, bottom = lesion_box(phantom)
    below = phantom.image_HW[bottom + 3 : bottom + 30].astype(float).mean(axis=0)
    quarter = (right - left) // 4
    beneath = below[left + quarter : right - quarter]
    beside = np.concatenate([below[: max(0, left - 3)], below[right + 3 :]])
    return beneath.mean() - beside.mean()


def echo_contrast(phantom):
    """Mean grey of the lesion less that of the rest of the frame at equal depth."""
    _, top, _, bottom = lesion_box(phantom)
    grey, inside = phantom.image_HW[top:bottom].astype(float), phantom.mask_HW[top:bottom] > 0
    return grey[inside].mean() - grey[~inside].mean()


@settings(max_examples=40, deadline=None)
@given(any_findings, st.integers(0, 2**32), st.integers(1, 3), st.integers(64, 110))
def test_any_findings_make_a_frame_with_its_masks(findings, seed, lesion_count, width_px):
    phantom = simulate_image(seed, findings, 80, width_px=width_px, lesion_count=lesion_count)
    assert phantom.image_HW.shape == phantom.mask_HW.shape == (80, width_px)
    assert phantom.image_HW.dtype == phantom.mask_HW.dtype == np.uint8
    assert np.isin(phantom.mask_HW, (0, 255)).all()
    assert phantom.lesion_count == lesion_count
    assert all(mask.any() for mask in phantom.lesion_masks)
    # Lesions lie apart, so their areas add up to the union's.
    union = sum(np.count_nonzero(mask) for mask in phantom.lesion_masks)
    assert union == np.count_nonzero(phantom.mask_HW)
    assert phantom.image_HW.std() > 15  # a picture, neither black nor saturated
    assert 15 < phantom.image_HW.mean() < 170


@settings(max_examples=10, deadline=None)
@given(any_findings, st.integers(0, 2**32))
def test_equal_seeds_give_equal_bytes(findings, seed):
    first, again = (simulate_image(seed, findings, 64) for _ in range(2))
    other = simulate_image(seed + 1, findings, 64)
    assert first.image_HW.tobytes() == again.image_HW.tobytes()
    assert first.mask_HW.tobytes() == again.mask_HW.tobytes()
    assert first.image_HW.tobytes() != other.image_HW.tobytes()


def test_seed_sequence_is_left_as_it_was():
    seed = np.random.SeedSequence([3, 4])
    first, again = (simulate_image(seed, PLAIN, 64) for _ in range(2))
    assert np.array_equal(first.image_HW, again.image_HW)


def test_two_views_are_one_breast():
    def correlation(a, b):
        return np.corrcoef(a.mask_HW.ravel() > 0, b.mask_HW.ravel() > 0)[0, 1]

    first = [simulate_image(seed, PLAIN, SIZE_PX) for seed in range(8)]
    second = [simulate_image(seed, PLAIN, SIZE_PX, view=1) for seed in range(8)]
    same = [correlation(a, b) for a, b in zip(first, second, strict=True)]
    strangers = [correlation(a, b) for a, b in zip(first, second[1:], strict=False)]
    assert np.mean(same) > np.mean(strangers) + 0.3
    assert not any(
        np.array_equal(a.image_HW, b.image_HW) for a, b in zip(first, second, strict=True)
    )


def test_normal_has_no_lesion():
    phantom = simulate_image(0, Findings(pathology="normal", birads="1"), SIZE_PX)
    assert phantom.lesion_count == 0
    assert not phantom.mask_HW.any()


def interior(phantom):
    """The lesion without its edge and walls."""
    return binary_erosion(phantom.mask_HW > 0, iterations=4)


def test_posterior_features_show_beneath_the_lesion():
    shadow, none, enhancement = (
        np.mean([column_beneath(p) for p in images(posterior_features=term)])
        for term in ("shadowing", "no posterior features", "enhancement")
    )
    assert shadow < -15
    assert abs(none) < 10
    assert enhancement > 10


def test_combined_pattern_shadows_one_half_and_enhances_the_other():
    halves = []
    for phantom in images(posterior_features="combined pattern", echo_pattern="isoechoic"):
        left, _, right, bottom = lesion_box(phantom)
        below = phantom.image_HW[bottom + 3 : bottom + 30, left:right].astype(float)
        half = (right - left) // 2
        halves.append(abs(below[:, :half].mean() - below[:, half:].mean()))
    plain = []
    for phantom in images(echo_pattern="isoechoic"):
        left, _, right, bottom = lesion_box(phantom)
        below = phantom.image_HW[bottom + 3 : bottom + 30, left:right].astype(float)
        half = (right - left) // 2
        plain.append(abs(below[:, :half].mean() - below[:, half:].mean()))
    assert np.mean(halves) > np.mean(plain) + 20


def test_echo_patterns_stand_in_their_order():
    order = ("anechoic", "hypoechoic", "isoechoic", "hyperechoic")
    levels = [np.mean([echo_contrast(p) for p in images(echo_pattern=term)]) for term in order]
    assert all(np.diff(levels) > 8), dict(zip(order, levels, strict=True))
    assert levels[0] < -35
    assert levels[-1] > 5


def test_mixed_echo_patterns_vary_inside():
    def spread(term):
        """Of the local mean, so that speckle does not count."""
        return np.mean(
            [
                gaussian_filter(p.image_HW.astype(float), 1.5)[interior(p)].std()
                for p in images(echo_pattern=term)
            ]
        )

    even = spread("hypoechoic")
    assert spread("heterogeneous") > 1.4 * even
    assert spread("complex cystic and solid") > 1.4 * even


@pytest.mark.parametrize("shape", ["oval", "irregular"])
@pytest.mark.parametrize("margin", MARGINS)
def test_orientation_is_that_of_the_bounding_box(shape, margin):
    for orientation in ORIENTATIONS:
        for phantom in images(4, shape=shape, margin=(margin,), orientation=orientation):
            left, top, right, bottom = lesion_box(phantom)
            assert (right - left > bottom - top) == (orientation == "parallel")


def test_round_is_about_as_wide_as_tall():
    for phantom in images(shape="round", orientation="not parallel"):
        left, top, right, bottom = lesion_box(phantom)
        assert 0.85 < (right - left) / (bottom - top) < 1.15


def test_irregular_and_spiculated_outlines_fill_less_of_their_box():
    def filled(**terms):
        shares = []
        for phantom in images(**terms):
            left, top, right, bottom = lesion_box(phantom)
            shares.append((phantom.mask_HW > 0).sum() / ((right - left) * (bottom - top)))
        return np.mean(shares)

    oval = filled()
    assert oval > 0.7  # a whole ellipse fills pi/4
    assert filled(margin=("spiculated",)) < oval - 0.1
    assert filled(shape="irregular") < oval - 0.02


def test_indistinct_margin_has_a_softer_edge():
    def steepest(term):
        return np.mean(
            [
                # Rows through the middle, averaged so that speckle does not count as an edge.
                np.abs(np.diff(profile_across_edge(p))).max()
                for p in images(margin=(term,), echo_pattern="anechoic")
            ]
        )

    def profile_across_edge(phantom):
        """Mean grey by distance from the outline, -6 … 6 px."""
        inside = phantom.mask_HW > 0
        signed = np.where(inside, distance(inside), 1 - distance(~inside))
        return np.array([phantom.image_HW[np.round(signed) == d].mean() for d in range(-6, 7)])

    assert steepest("circumscribed") > 1.5 * steepest("indistinct")


@pytest.mark.parametrize(
    ("term", "inside"), [("in a mass", True), ("outside of a mass", False), ("intraductal", False)]
)
def test_calcifications_are_bright_points_where_they_should_be(term, inside):
    # Equal seeds draw the same tissue and speckle, so the difference is the calcifications alone.
    counts, where = [], []
    for plain, calcified in zip(images(), images(calcifications=term), strict=True):
        gained = calcified.image_HW.astype(int) - plain.image_HW
        bright = gained > 40
        counts.append(np.count_nonzero(bright))
        assert np.array_equal(calcified.mask_HW, plain.mask_HW)
        where.append(((calcified.mask_HW > 0) == inside)[bright])
    assert np.concatenate(where).mean() > 0.9
    assert np.mean(counts) > 5
    assert np.mean(counts) < 0.02 * SIZE_PX**2


def test_area_fractions_are_those_of_the_real_collections():
    def fractions(pathology):
        return np.array(
            [
                np.mean(simulate_image(seed, row, 64).mask_HW > 0)
                for seed in range(60)
                for row in [random_findings(np.random.default_rng(seed), pathology)]
            ]
        )

    benign, malignant = fractions("benign"), fractions("malignant")
    assert 0.035 < np.median(benign) < 0.07
    assert 0.075 < np.median(malignant) < 0.13
    assert min(benign.min(), malignant.min()) > 0.005
    assert max(benign.max(), malignant.max()) < 0.31


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 2**32), st.sampled_from(["benign", "malignant"]))
def test_random_findings_are_whole_and_fit_their_category(seed, pathology):
    findings = random_findings(np.random.default_rng(seed), pathology)
    assert all(findings.as_row().values())
    assert (
        findings.birads in {"benign": ("2", "3", "4A"), "malignant": ("4B", "4C", "5")}[pathology]
    )
    assert "circumscribed" not in findings.margin or len(findings.margin) == 1
    if findings.shape == "round":
        assert findings.orientation == "not parallel"
    if findings.birads == "2":
        assert findings.margin == ("circumscribed",)
        assert findings.shape != "irregular"
    assert histology_of(findings)


def test_classes_differ_as_they_should():
    rows = {
        name: [random_findings(np.random.default_rng(seed), name) for seed in range(300)]
        for name in ("benign", "malignant")
    }

    def share(name, suspicious):
        return np.mean([suspicious(row) for row in rows[name]])

    for suspicious in (
        lambda row: row.shape == "irregular",
        lambda row: row.margin != ("circumscribed",),
        lambda row: row.posterior_features == "shadowing",
        lambda row: row.orientation == "not parallel",
    ):
        # Apart, and yet no term gives the class away by itself.
        assert 0 < share("benign", suspicious) < 0.4 < share("malignant", suspicious) < 1


def test_wrong_arguments_are_refused():
    with pytest.raises(InputError, match="32 x 32.*at least 64"):
        simulate_image(0, PLAIN, 32)
    with pytest.raises(InputError, match="128 x 10 .*at least 64"):
        simulate_image(0, PLAIN, 128, width_px=10)
    with pytest.raises(InputError, match="lesion_count: 0"):
        simulate_image(0, PLAIN, 64, lesion_count=0)
    with pytest.raises(InputError, match="'cyst'.*benign"):
        random_findings(np.random.default_rng(0), "cyst")
