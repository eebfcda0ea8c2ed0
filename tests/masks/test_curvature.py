from collections import Counter

import numpy as np
import pytest
from drawn_masks import SEEDS, edited, examples, small_prior
from hypothesis import given
from hypothesis import strategies as st

from stdiff.birads.query import parse_query
from stdiff.birads.shape import count_lesions, largest_lesion, measure
from stdiff.masks.copies import KnownLesions, near_copies
from stdiff.masks.curvature import CurvatureSource
from stdiff.masks.prior import Prior
from stdiff.runtime.files import InputError

SHARP = ("spiculated", "microlobulated", "angular")
SIZES = ((100, 100), (96, 128))


def source(text="", size=(100, 100), prior=None, **options):
    return CurvatureSource(prior or small_prior(), *size, parse_query(text), **options)


def draw(source, *seeds):
    return [source.sample(np.random.default_rng(seed)) for seed in seeds]


def mismatches(sampled):
    """Terms of the findings that are not those measured on the mask."""
    findings, found = sampled.findings, measure(sampled.mask)
    terms = [
        (name, getattr(findings, name), getattr(found, name))
        for name in ("shape", "orientation")
        if getattr(findings, name) not in (None, getattr(found, name))
    ]
    if findings.margin == ("indistinct",):
        return terms + [("margin", "indistinct", m) for m in SHARP if m == found.margin]
    if findings.margin and found.margin not in findings.margin:
        terms.append(("margin", findings.margin, found.margin))
    return terms


def touches(mask):
    return bool(mask[[0, -1]].any() or mask[:, [0, -1]].any())


@given(SEEDS, st.sampled_from(SIZES))
@examples(60)
def test_a_mask_looks_as_its_findings_say(seed, size):
    (sampled,) = draw(source(size=size), seed)
    assert sampled.mask.shape == size
    assert sampled.mask.dtype == np.uint8
    assert set(np.unique(sampled.mask)) == {0, 255}
    assert sampled.mask_origin == "curvature"
    assert mismatches(sampled) == []
    known = {entry.findings for entry in small_prior().findings}
    assert sampled.findings in known


def test_the_generator_alone_decides():
    first, second = source(), source()
    masks = draw(first, 3, 4, 5)
    again = draw(second, 5, 4, 3)[::-1]
    for mask, other in zip(masks, again, strict=True):
        assert np.array_equal(mask.mask, other.mask)
        assert mask.findings == other.findings
    assert len({sampled.mask.tobytes() for sampled in masks}) == 3


@pytest.mark.parametrize(("balance", "share"), [({}, 0.1), ({"shape": 1}, 0.5)])
def test_findings_come_as_often_as_in_the_prior_or_as_balanced(balance, share):
    def nine_to_one(values):
        oval, irregular = (
            next(e for e in values["findings"] if e["margin_class"] == margin)
            for margin in ("circumscribed", "spiculated")
        )
        values["findings"] = [oval | {"masks": 9}, irregular | {"masks": 1}]

    drawn_from = source(prior=edited(small_prior(), nine_to_one), balance=balance)
    shapes = Counter(sampled.findings.shape for sampled in draw(drawn_from, *range(80)))
    assert set(shapes) == {"oval", "irregular"}
    assert shapes["irregular"] / 80 == pytest.approx(share, abs=0.12)


@pytest.mark.parametrize("size", [(100, 100), (112, 128)])
@pytest.mark.parametrize("orientation", ["parallel", "not parallel"])
@pytest.mark.parametrize("margin", ["circumscribed", "angular", "microlobulated", "spiculated"])
def test_every_margin_and_orientation_can_be_had(margin, orientation, size):
    drawn_from = source(f"margin={margin}, orientation={orientation}", size)
    for sampled in draw(drawn_from, 0, 1):
        found = measure(sampled.mask)
        assert sampled.findings.margin == (margin,)
        assert (found.margin, found.orientation) == (margin, orientation)
        assert mismatches(sampled) == []


@pytest.mark.parametrize("shape", ["oval", "round", "irregular"])
def test_every_shape_can_be_had(shape):
    for sampled in draw(source(f"shape={shape}"), *range(5)):
        assert measure(sampled.mask).shape == sampled.findings.shape == shape


def test_one_of_several_terms_is_had():
    seen = Counter()
    for sampled in draw(source("margin=spiculated|angular, pathology=malignant"), *range(12)):
        assert sampled.findings.pathology == "malignant"
        assert mismatches(sampled) == []
        seen[sampled.findings.margin] += 1
    assert set(seen) == {("spiculated",), ("angular",)}


@pytest.mark.parametrize(("margin", "seeds"), [("microlobulated", (2, 3)), ("spiculated", (4, 5))])
def test_terms_that_no_mask_of_the_prior_has_together_can_be_had(margin, seeds):
    # Most benign masks of the prior are oval or round, which nobody asks for here and which no
    # outline with such a margin is.
    for sampled in draw(source(f"pathology=benign, margin={margin}"), *seeds):
        assert (sampled.findings.pathology, sampled.findings.margin) == ("benign", (margin,))
        assert mismatches(sampled) == []


def test_terms_that_the_prior_does_not_know_are_added():
    drawn_from = source("echo_pattern=anechoic, birads=4A|4C")
    for sampled in draw(drawn_from, *range(6)):
        assert sampled.findings.echo_pattern == "anechoic"
        assert sampled.findings.birads in ("4A", "4C")


@given(st.floats(0.05, 0.15), st.floats(0.02, 0.1), SEEDS)
@examples(25)
def test_the_area_is_in_the_range_of_the_query(low, width, seed):
    (sampled,) = draw(source(f"area_fraction={low:.3f}..{low + width:.3f}"), seed)
    area_fraction = measure(sampled.mask).area_fraction
    assert float(f"{low:.3f}") <= area_fraction <= float(f"{low + width:.3f}")
    assert mismatches(sampled) == []


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("centre_x=0.52..0.6", lambda found: found.centroid[0]),
        ("centre_y=..0.4", lambda found: found.centroid[1]),
        ("axis_ratio=0.5..0.7", lambda found: found.axis_ratio),
        ("solidity=0.7..0.9", lambda found: found.solidity),
        ("aspect=1.2..1.6", lambda found: found.aspect),
    ],
)
def test_other_ranges_are_kept(text, value):
    ((low, high),) = parse_query(text).ranges.values()
    for sampled in draw(source(text), *range(5)):
        assert low <= value(measure(sampled.mask)) <= high
        assert mismatches(sampled) == []


@pytest.mark.parametrize("text", ["aspect=1.5..2", "axis_ratio=0.9..1", "axis_ratio=..0.25"])
def test_rare_axes_are_had_whatever_the_seed(text):
    # Orientation and shape, which are not in the query, are changed.
    drawn_from = CurvatureSource(Prior.default(), 128, 128, parse_query(text))
    for sampled in draw(drawn_from, *range(12)):
        assert drawn_from.query.range_violations(measure(sampled.mask), 1) == []
        assert mismatches(sampled) == []


@pytest.mark.parametrize("count", [1, 2, 3])
def test_so_many_lesions_can_be_had(count):
    least_ratio, *_, most_ratio = small_prior().lesions.area_ratio
    for sampled in draw(source(f"lesion_count={count}"), *range(10)):
        assert count_lesions(sampled.mask) == count
        assert mismatches(sampled) == []
        areas = np.count_nonzero(sampled.mask) / np.count_nonzero(largest_lesion(sampled.mask)) - 1
        assert (count - 1) * least_ratio * 0.5 <= areas <= (count - 1) * most_ratio * 1.5


def test_of_two_lesions_as_large_as_each_other_the_right_one_is_described():
    def alike(values):
        values["lesions"]["area_ratio"] = [1, 1]
        values["findings"] = [e for e in values["findings"] if e["margin_class"] == "unclear"][:1]

    # About every sixth of these pairs has equally many pixels.
    drawn_from = source(
        "lesion_count=2, area_fraction=..0.06", (64, 64), edited(small_prior(), alike)
    )
    wrong = [mismatches(sampled) for sampled in draw(drawn_from, *range(3, 9))]
    assert [terms for terms in wrong if terms] == []


@pytest.mark.parametrize("rate", [0, 1])
def test_lesions_are_cut_by_the_border_as_often_as_the_prior_says(rate):
    def change(values):
        values["border"]["rate"] = rate
        values["border"]["sides"] = {"top": 0.25, "right": 0.25, "bottom": 0.25, "left": 0.25}

    for sampled in draw(source("", (96, 96), edited(small_prior(), change)), *range(12)):
        assert touches(sampled.mask) == bool(rate)
        assert mismatches(sampled) == []


@pytest.mark.parametrize("side", ["top", "right", "bottom", "left"])
def test_lesions_are_cut_by_the_side_the_prior_says(side):
    def change(values):
        values["border"]["rate"], values["border"]["sides"] = 1, {side: 1}

    edges = {"top": np.s_[0], "bottom": np.s_[-1], "left": np.s_[:, 0], "right": np.s_[:, -1]}
    for sampled in draw(source("", (96, 96), edited(small_prior(), change)), *range(4)):
        assert sampled.mask[edges[side]].any()


def test_a_prior_whose_lesions_touch_no_border_can_be_edited_to():
    def change(values):
        values["border"] |= {"rate": 1, "sides": dict.fromkeys(values["border"]["sides"], 0)}

    # What fitting to masks away from the border writes, with the rate alone edited.
    for sampled in draw(source("", (96, 96), edited(small_prior(), change)), *range(3)):
        assert touches(sampled.mask)


def test_what_cannot_be_had_is_refused_with_the_nearest(monkeypatch):
    with pytest.raises(InputError) as error:
        source("area_fraction=0.9..0.95, centre_x=..0.01")
    most = small_prior().features["area_fraction"][-1]
    assert f"the nearest possible is area_fraction=..{most:g}" in str(error.value)
    assert "the nearest possible is centre_x=0." in str(error.value)
    monkeypatch.setattr("stdiff.masks.curvature._OUTLINES_PER_ENTRY", 15)
    with pytest.raises(InputError, match="nearest had (shape|margin) '.*' instead of 'round|spic"):
        draw(source("shape=round, margin=spiculated"), 0)
    with pytest.raises(InputError, match="nearest had solidity .* instead of 0.01..0.1"):
        draw(source("solidity=0.01..0.1"), 0)


def test_no_mask_copies_a_known_one():
    drawn = [sampled.mask for sampled in draw(source(), *range(40))]
    known = KnownLesions(drawn)
    assert all(known.has_copy(largest_lesion(mask)) for mask in drawn)
    # The same draws again would be copies, one and all.
    others = [sampled.mask for sampled in draw(source(known=known), *range(40))]
    assert near_copies(np.stack(others), np.stack(drawn)) == 0
    # A mask that is no copy is drawn as if nothing were known.
    few = KnownLesions(drawn[:1])
    again = [sampled.mask for sampled in draw(source(known=few), *range(40))]
    assert sum(not np.array_equal(a, b) for a, b in zip(again, drawn, strict=True)) < 10
