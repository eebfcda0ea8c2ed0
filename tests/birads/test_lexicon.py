"""Captions: lossless, strict about words, tolerant of spelling and order."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stdiff.birads.lexicon import (
    BIRADS,
    MARGINS,
    VOCABULARY,
    CaptionError,
    Findings,
    parse,
    render,
)
from stdiff.runtime.files import InputError

SINGLE = [name for name in VOCABULARY if name != "margin"]
MARGIN_SETS = [
    subset for size in range(len(MARGINS) + 1) for subset in itertools.combinations(MARGINS, size)
]
findings = st.builds(
    Findings,
    **{name: st.sampled_from([None, *VOCABULARY[name]]) for name in SINGLE},
    margin=st.lists(st.sampled_from(MARGINS), unique=True).map(tuple),
)


@settings(max_examples=500)
@given(findings)
def test_parse_undoes_render(expected):
    caption = render(expected)
    assert parse(caption) == expected
    assert "\n" not in caption
    assert render(parse(caption)) == caption


@pytest.mark.parametrize("first, second", list(itertools.combinations(SINGLE, 2)))
def test_every_pair_of_terms_survives(first, second):
    for one, other in itertools.product(VOCABULARY[first], VOCABULARY[second]):
        expected = Findings(**{first: one, second: other})
        assert parse(render(expected)) == expected


@pytest.mark.parametrize("name", SINGLE)
def test_every_set_of_margins_survives_beside_every_term(name):
    for margin, term in itertools.product(MARGIN_SETS, VOCABULARY[name]):
        expected = Findings(margin=margin, **{name: term})
        assert parse(render(expected)) == expected


def test_nothing_known_is_the_empty_caption():
    assert render(Findings()) == ""
    assert parse("") == parse("  ") == Findings()


@given(findings)
def test_distinct_findings_have_distinct_captions(some):
    for name in SINGLE:
        for term in (None, *VOCABULARY[name]):
            other = Findings(**{f: getattr(some, f) for f in VOCABULARY} | {name: term})
            assert (render(other) == render(some)) == (other == some)


@given(findings, st.randoms())
def test_order_and_case_do_not_matter(expected, random):
    parts = [part for half in render(expected).split(": ") for part in half.split(", ") if part]
    random.shuffle(parts)
    assert parse(" ,  ".join(parts).upper() + ".") == expected


@given(findings)
def test_a_row_of_pandas_gives_the_findings_back(expected):
    row = expected.as_row()
    if row["margin"] is not None:  # pandas reads a list column as arrays
        row["margin"] = np.array(row["margin"], dtype=object)
    assert Findings.from_row({k: float("nan") if v is None else v for k, v in row.items()}) == (
        expected
    )
    assert Findings.from_row(expected.as_row()) == expected


@pytest.mark.parametrize(
    "spelling, expected",
    [
        ("taller-than-wide", Findings(orientation="not parallel")),
        ("Wider than tall", Findings(orientation="parallel")),
        ("posterior acoustic shadowing", Findings(posterior_features="shadowing")),
        ("acoustic enhancement", Findings(posterior_features="enhancement")),
        ("no posterior acoustic features", Findings(posterior_features="no posterior features")),
        ("echo-free", Findings(echo_pattern="anechoic")),
        ("complex cystic/solid", Findings(echo_pattern="complex cystic and solid")),
        ("hypoechoic echo pattern", Findings(echo_pattern="hypoechoic")),
        ("birads 4a", Findings(birads="4A")),
        ("BI-RADS: 4, oval", Findings(birads="4", shape="oval")),
        ("BI-RADS category 4C", Findings(birads="4C")),
        ("bi-rads-3", Findings(birads="3")),
        ("spiculated & angular margins", Findings(margin=("angular", "spiculated"))),
        ("spiculated margin; angular margin", Findings(margin=("angular", "spiculated"))),
        ("not circumscribed - indistinct margin", Findings(margin=("indistinct",))),
        ("BIRADS-4a", Findings(birads="4A")),
        ("BI RADS category: 4 b", Findings(birads="4B")),
        (
            "hypo-echoic, micro-lobulated",
            Findings(echo_pattern="hypoechoic", margin=("microlobulated",)),
        ),
        ("non-parallel", Findings(orientation="not parallel")),
        (
            "irregularly shaped; ill-defined margins",
            Findings(shape="irregular", margin=("indistinct",)),
        ),
        ("oval-shaped mass", Findings(shape="oval")),
        (
            "malignant tumour: heterogeneous echogenicity",
            Findings(pathology="malignant", echo_pattern="heterogeneous"),
        ),
        ("calcifications in mass", Findings(calcifications="in a mass")),
        ("no calcification", Findings(calcifications="none")),
        ("benign, benign", Findings(pathology="benign")),
    ],
)
def test_common_spellings_are_understood(spelling, expected):
    assert parse(spelling) == expected


@pytest.mark.parametrize(
    "caption, phrase, nearest",
    [
        ("irregullar shape", "irregullar shape", "irregular shape"),
        ("BI-RADS 4: hypoecoic", "hypoecoic", "hypoechoic"),
        ("spiculatd margin", "spiculatd margin", "spiculated margin"),
        ("posterior shadow", "posterior shadow", "posterior shadowing"),
        ("oval shape, malignent", "malignent", "malignant"),
        ("margin", "margin", ""),
    ],
)
def test_unknown_terms_are_refused_with_the_nearest(caption, phrase, nearest):
    with pytest.raises(CaptionError) as error:
        parse(caption)
    assert repr(phrase) in str(error.value)
    assert f"did you mean {nearest!r}?" in str(error.value) or not nearest


@given(st.text(max_size=30))
def test_any_text_is_parsed_or_refused_as_the_users_mistake(text):
    try:
        found = parse(text)
    except InputError as error:
        assert repr(text) in str(error)
    else:
        assert parse(render(found)) == found


def test_categories_that_do_not_exist_are_refused():
    with pytest.raises(CaptionError, match=r"'7' does not exist; expected one of 0, 1, 2"):
        parse("BI-RADS 7")
    for category in BIRADS:
        assert parse(f"BI-RADS {category}").birads == category


def test_two_terms_of_one_kind_are_refused():
    with pytest.raises(CaptionError, match="two terms for shape: 'oval' and 'round'"):
        parse("oval shape, round shape")


@pytest.mark.parametrize("name", [*VOCABULARY])
def test_findings_hold_lexicon_terms_only(name):
    with pytest.raises(CaptionError, match=f"{name}: 'fuzzy' is not a lexicon term"):
        Findings(**{name: ("fuzzy",) if name == "margin" else "fuzzy"})
