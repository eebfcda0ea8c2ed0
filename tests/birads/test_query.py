import numpy as np
import pytest
from drawn_masks import SIZE, ellipse, examples
from hypothesis import given
from hypothesis import strategies as st

from stdiff.birads.lexicon import VOCABULARY
from stdiff.birads.query import MEASURE_LIMITS, Query, measures_of, parse_query
from stdiff.birads.shape import count_lesions, measure
from stdiff.runtime.files import InputError


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
def test_queries_are_read(text, terms, ranges):
    query = parse_query(text)
    assert (dict(query.terms), dict(query.ranges)) == (terms, ranges)


@given(st.sampled_from(sorted(VOCABULARY)), st.data())
@examples(40)
def test_every_term_and_every_measure_can_be_queried(column, data):
    known = [term for term in VOCABULARY[column] if term != "normal"]
    terms = data.draw(st.lists(st.sampled_from(known), min_size=1, max_size=3, unique=True))
    name = data.draw(st.sampled_from(sorted(MEASURE_LIMITS)))
    low, high = sorted(data.draw(st.tuples(*[st.floats(*np.clip(MEASURE_LIMITS[name], 0, 9))] * 2)))
    query = parse_query(f"{column}={'|'.join(terms)}, {name}={low!r}..{high!r}")
    assert query.terms == {column: tuple(terms)}
    assert query.ranges == {name: (low, high)}


def test_every_mistake_is_named_at_once_with_a_hint():
    parts = {
        "margn=spiculated": "did you mean 'margin'",
        "area_fracton=0.1": "did you mean 'area_fraction'",
        "xyzzy=1": "expected one of pathology, birads",
        "margin=spiculted|angular": "not a term of margin; did you mean 'spiculated'",
        "orientation=17": "expected one of parallel, not parallel",
        "shape": "expected name=value",
        "shape=": "expected name=value",
        "birads=4A|": "'' is not a term of birads",
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
        parse_query(", ".join(parts))
    message = str(error.value)
    lines = message.splitlines()[1:]
    assert len(lines) == len(parts)
    for part, hint in parts.items():
        assert any(repr(part) in line and hint in line for line in lines), part
    assert "pathology=malignant, margin=spiculated|angular" in message


@pytest.mark.parametrize("text", ["shape=oval, shape=round", "aspect=1..2, aspect=1.5"])
def test_a_name_may_occur_once(text):
    with pytest.raises(InputError, match=r"occurs twice; write alternative terms as a\|b"):
        parse_query(text)


def test_measures_out_of_range_are_named():
    mask = ellipse(16, 8, 20, 40)
    found = measures_of(measure(mask), count_lesions(mask))
    assert set(found) == set(MEASURE_LIMITS)
    assert (found["centre_x"], found["centre_y"]) == pytest.approx((20 / SIZE, 40 / SIZE))
    assert (found["aspect"], found["axis_ratio"]) == pytest.approx((0.5, 0.5), rel=0.02)
    query = parse_query("aspect=..0.7, centre_x=0.5.., lesion_count=2..3, solidity=0.9..")
    assert query.range_violations(measure(mask), 1) == [
        "centre_x 0.312 instead of 0.5..1",
        "lesion_count 1 instead of 2..3",
    ]
    assert Query().range_violations(measure(mask), 1) == []
