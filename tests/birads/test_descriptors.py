import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stdiff.birads.descriptors import derived_terms, describe
from stdiff.birads.lexicon import Findings
from stdiff.simulation.findings import random_findings
from stdiff.simulation.image import simulate_image
from stdiff.table.cases import SCHEMA


def ellipse(a, b, height=120, width=160, x=80, y=50):
    ys, xs = np.ogrid[:height, :width]
    return ((xs - x) / a) ** 2 + ((ys - y) / b) ** 2 <= 1


def grey(shape, level=100, key=1, spread=6):
    """Even tissue with a little noise, as an averaged speckle would be."""
    noise = np.random.default_rng(key).normal(level, spread, shape)
    return np.clip(noise, 0, 255).astype(np.uint8)


def test_measures_are_those_of_the_case_table():
    fields = [field.name for field in SCHEMA.field("measures").type]
    mask = ellipse(30, 20)
    assert list(describe(grey(mask.shape), mask).measures) == fields
    assert list(describe(grey(mask.shape), mask & False).measures) == fields


def test_terms_are_those_of_the_lexicon():
    mask = ellipse(30, 20)
    terms = derived_terms(grey(mask.shape), mask)
    assert Findings(**terms).shape == "oval"
    assert terms["margin"] == ("circumscribed",)


@pytest.mark.parametrize(
    ("mask", "shape", "orientation"),
    [
        (ellipse(40, 20), "oval", "parallel"),
        (ellipse(15, 35), "oval", "not parallel"),
        (ellipse(26, 25), "round", "parallel"),
        (ellipse(45, 8) | ellipse(8, 40), "irregular", "parallel"),
    ],
)
def test_shape_and_orientation(mask, shape, orientation):
    terms = derived_terms(np.full(mask.shape, 100, np.uint8), mask)
    assert (terms["shape"], terms["orientation"]) == (shape, orientation)


@pytest.mark.parametrize(
    ("level", "term"),
    [(8, "anechoic"), (60, "hypoechoic"), (95, "isoechoic"), (150, "hyperechoic")],
)
def test_echo_pattern_is_compared_at_equal_depth(level, term):
    mask = ellipse(30, 20)
    image = grey(mask.shape)
    image[:25] = 255  # brighter at another depth
    image[75:] = 0
    image[mask] = grey(mask.shape, level, key=2)[mask]
    found = describe(image, mask)
    assert found.terms["echo_pattern"] == term
    assert found.measures["echo_difference_grey"] == pytest.approx(level - 100, abs=3)


def test_a_mass_of_fluid_and_solid_is_complex_and_one_of_two_solids_heterogeneous():
    mask = ellipse(40, 28)
    left = mask & (np.arange(160) < 75)
    for level, term in ((4, "complex cystic and solid"), (35, "heterogeneous")):
        image = grey(mask.shape)
        image[mask] = grey(mask.shape, 75, key=2)[mask]
        stripes = left if level < 20 else mask & (np.arange(160) // 20 % 2 == 0)
        image[stripes] = grey(mask.shape, level, key=3, spread=2)[stripes]
        assert derived_terms(image, mask)["echo_pattern"] == term


def test_a_lesion_darkened_by_its_own_shadow_is_not_heterogeneous():
    mask = ellipse(40, 28)
    image = grey(mask.shape).astype(float)
    path = np.cumsum(mask, axis=0)
    image -= 60 * path / path.max()
    image[mask] -= 30
    image = np.clip(image, 0, 255).astype(np.uint8)
    terms = derived_terms(image, mask)
    assert terms["echo_pattern"] == "hypoechoic"
    assert terms["posterior_features"] == "shadowing"


def test_callipers_and_another_lesion_do_not_change_the_echo_pattern():
    mask = ellipse(30, 20)
    image = grey(mask.shape)
    image[mask] = grey(mask.shape, 55, key=2)[mask]
    plain = describe(image, mask)
    image[50, 50:111:4] = 200
    image[30:71:4, 80] = 200
    for x, y in ((50, 50), (110, 50), (80, 30), (80, 70)):
        image[y, x - 3 : x + 4] = image[y - 3 : y + 4, x] = 255
    other = ellipse(12, 10, x=130, y=40)
    image[other] = 230
    marked = describe(image, mask | other)
    assert marked.terms == plain.terms
    assert marked.measures["bright_spots"] == plain.measures["bright_spots"] == 0
    assert "calcifications" not in marked.terms
    assert (plain.lesion_count, marked.lesion_count) == (1, 2)


def test_bright_spots_inside_a_mass_are_calcifications_and_those_outside_are_not():
    mask = ellipse(34, 26)
    places = [(70, 44), (84, 41), (95, 52), (76, 60), (88, 63)]
    for shift, count in ((0, 5), (70, 0)):
        image = grey(mask.shape)
        image[mask] = grey(mask.shape, 50, key=2)[mask]
        for x, y in places:
            x = (x + shift) % 160
            image[y - 1 : y + 2, x - 1 : x + 2] = 190
        found = describe(image, mask)
        assert found.measures["bright_spots"] == count
        assert found.terms.get("calcifications") == ("in a mass" if count else None)


@pytest.mark.parametrize(
    ("left", "right", "term"),
    [
        (40, 40, "shadowing"),
        (100, 100, "no posterior features"),
        (170, 170, "enhancement"),
        (40, 150, "combined pattern"),
    ],
)
def test_posterior_features(left, right, term):
    mask = ellipse(30, 20)
    image = grey(mask.shape)
    image[70:, 50:80] = left
    image[70:, 80:111] = right
    found = describe(image, mask)
    assert found.terms["posterior_features"] == term
    if left == right:
        difference = found.measures["posterior_difference_grey"]
        assert difference == pytest.approx(left - 100, abs=4)


def test_no_room_beneath_says_nothing_about_posterior_features():
    mask = ellipse(30, 20, y=100)
    found = describe(np.full(mask.shape, 100, np.uint8), mask)
    assert "posterior_features" not in found.terms
    assert found.measures["posterior_difference_grey"] is None


def test_a_lesion_as_wide_as_the_image_has_nothing_beside_it():
    mask = np.zeros((80, 60), bool)
    mask[20:50] = True
    found = describe(grey(mask.shape), mask)
    assert found.measures["echo_difference_grey"] is None
    assert not {"echo_pattern", "posterior_features"} & set(found.terms)


def test_an_edge_that_rises_slowly_is_not_called_circumscribed():
    ys, xs = np.ogrid[:120, :160]
    radius = np.hypot((xs - 80) / 1.3, ys - 50)
    mask = radius <= 24
    sharp = grey(mask.shape)
    sharp[mask] = 30
    slow = np.clip(30 + 70 * (radius - 14) / 20, 30, 100).astype(np.uint8)
    assert derived_terms(sharp, mask)["margin"] == ("circumscribed",)
    assert "margin" not in derived_terms(slow, mask)


def test_an_empty_mask_or_a_speck_has_no_terms():
    image = np.zeros((20, 20), np.uint8)
    speck = image > 0
    assert derived_terms(image, speck) == {}
    speck[3, 3] = True
    found = describe(image, speck)
    assert found.terms == {} and set(found.measures.values()) == {None}
    assert found.lesion_count == 1


@given(
    st.integers(0, 159),
    st.integers(0, 119),
    st.floats(1, 60),
    st.floats(1, 60),
    st.integers(0, 9),
)
@settings(max_examples=150, deadline=None)
def test_any_lesion_anywhere_can_be_described(x, y, a, b, key):
    mask = ellipse(a, b, x=x, y=y)
    image = np.random.default_rng(key).integers(0, 256, mask.shape, dtype=np.uint8)
    before = image.copy(), mask.copy()
    found = describe(image, mask)
    Findings(**found.terms)
    for value in found.measures.values():
        assert value is None or np.isfinite(value)
    assert describe(image, mask) == found
    assert np.array_equal(image, before[0]) and np.array_equal(mask, before[1])


@given(st.integers(0, 30), st.floats(0.3, 0.9))
@settings(max_examples=40, deadline=None)
def test_gain_and_mirroring_change_no_term_but_the_side(key, contrast):
    mask = ellipse(30, 20)
    image = grey(mask.shape, 120, key, spread=10)
    image[mask] = grey(mask.shape, 60, key + 1, spread=10)[mask]
    terms = derived_terms(image, mask)
    assert terms["echo_pattern"] == "hypoechoic"
    assert derived_terms((image * contrast).astype(np.uint8), mask)["echo_pattern"] == "hypoechoic"
    assert derived_terms(image[:, ::-1].copy(), mask[:, ::-1].copy()) == terms


@pytest.fixture(scope="module")
def simulated_pairs():
    """(truth, derived) terms of simulated images, a third of them malignant as in BUS-BRA."""
    rng = np.random.default_rng(2024)
    pairs = []
    for index in range(240):
        findings = random_findings(rng, ("benign", "benign", "malignant")[index % 3])
        phantom = simulate_image(10_000 + index, findings, 224)
        pairs.append((findings, derived_terms(phantom.image_HW, phantom.mask_HW > 0)))
    return pairs


@pytest.mark.parametrize("column", ["orientation", "shape", "posterior_features", "echo_pattern"])
def test_a_simulated_term_is_derived_from_its_pixels(simulated_pairs, column):
    truth = [getattr(findings, column) for findings, _ in simulated_pairs]
    # A term that could not be derived counts as wrong.
    derived = np.array([terms.get(column, "not derived") for _, terms in simulated_pairs])
    recalls = [np.mean(derived[np.array(truth) == term] == term) for term in sorted(set(truth))]
    assert np.mean(recalls) >= 0.85


def test_calcifications_are_named_only_where_they_are(simulated_pairs):
    named = np.array([terms.get("calcifications") == "in a mass" for _, terms in simulated_pairs])
    there = np.array([findings.calcifications == "in a mass" for findings, _ in simulated_pairs])
    assert named[there].mean() >= 0.5
    assert named[~there].mean() <= 0.01


def test_a_margin_is_derived_only_where_it_is_clear(simulated_pairs):
    pairs = [(f.margin, terms["margin"]) for f, terms in simulated_pairs if "margin" in terms]
    assert len(pairs) > 0.5 * len(simulated_pairs)
    assert np.mean([set(derived) <= set(truth) for truth, derived in pairs]) >= 0.9
