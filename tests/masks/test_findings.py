from collections import Counter

import numpy as np
import pytest
from drawn_masks import SEEDS, SIZE, ellipse, examples
from hypothesis import given
from hypothesis import strategies as st

from stdiff.birads.lexicon import VOCABULARY, Findings
from stdiff.birads.query import MEASURED, Where, measured, parse_where
from stdiff.birads.shape import count_lesions, measure
from stdiff.masks.findings import nearest_entries, probabilities, with_terms
from stdiff.runtime.files import InputError


@st.composite
def tables(draw):
    """Findings that occur together, and how many masks each stands for."""
    rng = np.random.default_rng(draw(SEEDS))
    findings = [
        Findings(
            shape=rng.choice([None, "oval", "round", "irregular"]),
            birads=rng.choice([None, "2", "4A", "5"]),
            margin=tuple(rng.choice(VOCABULARY["margin"], rng.integers(0, 3), replace=False)),
        )
        for _ in range(draw(st.integers(1, 12)))
    ]
    return findings, rng.integers(1, 50, len(findings)).tolist()


def frequencies(findings, likely, column):
    found = Counter()
    for entry, probability in zip(findings, likely, strict=True):
        found[getattr(entry, column)] += probability
    return found


@pytest.mark.parametrize(
    ("text", "terms", "ranges"),
    [
        ("", {}, {}),
        (" , ", {}, {}),
        ("pathology=benign", {"pathology": ("benign",)}, {}),
        (
            " pathology = malignant , margin = spiculated|angular,area_fraction=0.02..0.1",
            {"pathology": ("malignant",), "margin": ("spiculated", "angular")},
            {"area_fraction": (0.02, 0.1)},
        ),
        (
            "orientation=not parallel, birads=4A | 4B, calcifications=in a mass",
            {
                "orientation": ("not parallel",),
                "birads": ("4A", "4B"),
                "calcifications": ("in a mass",),
            },
            {},
        ),
        (
            "aspect=1..,axis_ratio=..0.5,lesion_count=2",
            {},
            {"aspect": (1, np.inf), "axis_ratio": (0, 0.5), "lesion_count": (2, 2)},
        ),
        ("area_fraction=1e-3..2E-2", {}, {"area_fraction": (0.001, 0.02)}),
        ("centre_x=0...5", {}, {"centre_x": (0, 0.5)}),
        ("solidity=..", {}, {"solidity": (0, 1)}),
    ],
)
def test_conditions_are_read(text, terms, ranges):
    where = parse_where(text)
    assert (dict(where.terms), dict(where.ranges)) == (terms, ranges)


@given(st.sampled_from(sorted(VOCABULARY)), st.data())
@examples(40)
def test_every_term_and_every_measure_can_be_asked(column, data):
    known = [term for term in VOCABULARY[column] if term != "normal"]
    terms = data.draw(st.lists(st.sampled_from(known), min_size=1, max_size=3, unique=True))
    name = data.draw(st.sampled_from(sorted(MEASURED)))
    low, high = sorted(data.draw(st.tuples(*[st.floats(*np.clip(MEASURED[name], 0, 9))] * 2)))
    where = parse_where(f"{column}={'|'.join(terms)}, {name}={low!r}..{high!r}")
    assert where.terms == {column: tuple(terms)}
    assert where.ranges == {name: (low, high)}


def test_every_mistake_is_named_at_once_with_a_hint():
    conditions = {
        "margn=spiculated": "did you mean 'margin'",
        "area_fracton=0.1": "did you mean 'area_fraction'",
        "xyzzy=1": "expected one of pathology, birads",
        "margin=spiculted|angular": "'spiculted' is no term of margin; did you mean 'spiculated'",
        "orientation=17": "expected parallel, not parallel",
        "shape": "expected name=value",
        "shape=": "expected name=value",
        "birads=4A|": "'' is no term of birads",
        "pathology=normal": "no lesion to draw",
        "axis_ratio=0.9..0.1": "0 <= low <= high <= 1",
        "solidity=0.5..1.5": "0 <= low <= high <= 1",
        "lesion_count=0": "1 <= low <= high <= inf",
        "aspect=wide..": "expected numbers",
        "centre_x=0.1-0.3": "expected numbers",
        "centre_y=nan": "0 <= low <= high <= 1",
        "area_fraction=-0.1..0.1": "0 <= low <= high <= 1",
    }
    with pytest.raises(InputError) as error:
        parse_where(", ".join(conditions))
    message = str(error.value)
    lines = message.splitlines()[1:]
    assert len(lines) == len(conditions)
    for condition, hint in conditions.items():
        assert any(repr(condition) in line and hint in line for line in lines), condition
    assert "pathology=malignant, margin=spiculated|angular" in message


@pytest.mark.parametrize("text", ["shape=oval, shape=round", "aspect=1..2, aspect=1.5"])
def test_a_name_is_asked_but_once(text):
    with pytest.raises(InputError, match=r"asked twice; write terms as a\|b"):
        parse_where(text)


def test_what_a_mask_is_out_of_range_in_is_told():
    mask = ellipse(16, 8, 20, 40)
    found = measured(measure(mask), count_lesions(mask))
    assert set(found) == set(MEASURED)
    assert (found["centre_x"], found["centre_y"]) == pytest.approx((20 / SIZE, 40 / SIZE))
    assert (found["aspect"], found["axis_ratio"]) == pytest.approx((0.5, 0.5), rel=0.02)
    where = parse_where("aspect=..0.7, centre_x=0.5.., lesion_count=2..3, solidity=0.9..")
    assert where.violations(measure(mask), 1) == [
        "centre_x 0.312 instead of 0.5..1",
        "lesion_count 1 instead of 2..3",
    ]
    assert Where().violations(measure(mask), 1) == []


@given(tables(), st.sampled_from(["shape", "birads"]))
@examples(80)
def test_full_balance_makes_terms_equally_frequent(table, column):
    findings, masks = table
    likely = probabilities(findings, masks, {column: 1})
    assert likely.sum() == pytest.approx(1) and (likely > 0).all()
    found = frequencies(findings, likely, column)
    unknown = found.pop(None, 0)
    assert list(found.values()) == pytest.approx([(1 - unknown) / max(1, len(found))] * len(found))
    # Entries without the term stay as frequent as they were, and those with one do in all.
    assert unknown == pytest.approx(
        frequencies(findings, np.divide(masks, sum(masks)), column)[None]
    )


@given(tables())
@examples(40)
def test_no_balance_leaves_terms_as_frequent_as_they_are(table):
    findings, masks = table
    as_they_are = np.divide(masks, sum(masks))
    for balance in ({}, {"shape": 0}, {"margin": 0, "birads": 0}, {"echo_pattern": 1}):
        assert probabilities(findings, masks, balance) == pytest.approx(as_they_are)


@given(tables(), st.floats(0, 1), st.floats(0, 1))
@examples(40)
def test_more_balance_brings_terms_closer(table, first, second):
    findings, masks = table
    spreads = []
    for strength in sorted((first, second)):
        found = frequencies(findings, probabilities(findings, masks, {"shape": strength}), "shape")
        found.pop(None, 0)
        spreads.append(max(found.values(), default=1) / min(found.values(), default=1))
    assert spreads[1] <= spreads[0] * (1 + 1e-9)


def test_a_balance_of_nothing_is_refused():
    for balance in ({"patology": 1}, {"shape": 1.5}, {"shape": -1}):
        with pytest.raises(InputError, match="expected strengths from 0 to 1 of pathology"):
            probabilities([Findings(shape="oval")], [1], balance)


def test_of_several_margins_the_rarest_counts():
    findings = [Findings(margin=("indistinct",)), Findings(margin=("indistinct", "spiculated"))]
    likely = probabilities(findings, [9, 1], {"margin": 1})
    # Indistinct is in all 10 masks, spiculated in one: their mean is 5.5.
    assert likely[1] / likely[0] == pytest.approx((1 * 5.5 / 1) / (9 * 5.5 / 10))


def test_the_nearest_entries_meet_most_conditions():
    findings = [
        Findings("benign", "3", "oval", margin=("circumscribed",)),
        Findings("malignant", "5", "irregular", margin=("indistinct", "spiculated")),
        Findings("malignant", "4C", "irregular"),
        Findings(),
    ]
    asked = {
        "": ([0, 1, 2, 3], 0),
        "pathology=benign|malignant": ([0, 1, 2], 1),
        "margin=spiculated|angular": ([1], 1),
        "pathology=malignant, margin=circumscribed": ([0, 1, 2], 1),
        "shape=irregular, pathology=malignant, birads=4C|5": ([1, 2], 3),
        "echo_pattern=anechoic": ([0, 1, 2, 3], 0),
    }
    for text, expected in asked.items():
        assert nearest_entries(findings, parse_where(text)) == expected, text


@given(tables(), SEEDS)
@examples(60)
def test_terms_that_are_missing_are_added_and_others_kept(table, seed):
    where = parse_where("shape=oval|round, margin=spiculated|angular, echo_pattern=anechoic")
    for findings in table[0]:
        changed = with_terms(findings, where, np.random.default_rng(seed))
        assert where.met_terms(changed) == len(where.terms)
        assert changed.birads == findings.birads
        if findings.shape in ("oval", "round"):
            assert changed.shape == findings.shape
        if {"spiculated", "angular"} & set(findings.margin):
            assert changed.margin == findings.margin
        assert with_terms(changed, where, np.random.default_rng(seed)) == changed


def test_each_of_several_terms_is_chosen_now_and_then():
    where = parse_where("margin=spiculated|angular")
    rng = np.random.default_rng(0)
    seen = Counter(with_terms(Findings(), where, rng).margin for _ in range(200))
    assert min(seen[("spiculated",)], seen[("angular",)]) > 70
