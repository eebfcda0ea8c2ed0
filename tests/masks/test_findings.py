from collections import Counter

import numpy as np
import pytest
from drawn_masks import SEEDS, examples
from hypothesis import given
from hypothesis import strategies as st

from stdiff.birads.lexicon import VOCABULARY, Findings
from stdiff.birads.query import parse_query
from stdiff.masks.findings import balanced_probabilities, best_matches, with_query_terms
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


@given(tables(), st.sampled_from(["shape", "birads"]))
@examples(80)
def test_full_balance_makes_terms_equally_frequent(table, column):
    findings, masks = table
    likely = balanced_probabilities(findings, masks, {column: 1})
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
        assert balanced_probabilities(findings, masks, balance) == pytest.approx(as_they_are)


@given(tables(), st.floats(0, 1), st.floats(0, 1))
@examples(40)
def test_more_balance_brings_terms_closer(table, first, second):
    findings, masks = table
    spreads = []
    for strength in sorted((first, second)):
        found = frequencies(
            findings, balanced_probabilities(findings, masks, {"shape": strength}), "shape"
        )
        found.pop(None, 0)
        spreads.append(max(found.values(), default=1) / min(found.values(), default=1))
    assert spreads[1] <= spreads[0] * (1 + 1e-9)


def test_a_balance_of_nothing_is_refused():
    for balance in ({"patology": 1}, {"shape": 1.5}, {"shape": -1}):
        with pytest.raises(InputError, match="expected strengths from 0 to 1 of pathology"):
            balanced_probabilities([Findings(shape="oval")], [1], balance)


def test_of_several_margins_the_rarest_counts():
    findings = [Findings(margin=("indistinct",)), Findings(margin=("indistinct", "spiculated"))]
    likely = balanced_probabilities(findings, [9, 1], {"margin": 1})
    # Indistinct is in all 10 masks, spiculated in one: their mean is 5.5.
    assert likely[1] / likely[0] == pytest.approx((1 * 5.5 / 1) / (9 * 5.5 / 10))


def test_the_best_matches_match_the_query_in_most_columns():
    findings = [
        Findings("benign", "3", "oval", margin=("circumscribed",)),
        Findings("malignant", "5", "irregular", margin=("indistinct", "spiculated")),
        Findings("malignant", "4C", "irregular"),
        Findings(),
    ]
    queries = {
        "": ([0, 1, 2, 3], 0),
        "pathology=benign|malignant": ([0, 1, 2], 1),
        "margin=spiculated|angular": ([1], 1),
        "pathology=malignant, margin=circumscribed": ([0, 1, 2], 1),
        "shape=irregular, pathology=malignant, birads=4C|5": ([1, 2], 3),
        "echo_pattern=anechoic": ([0, 1, 2, 3], 0),
    }
    for text, (expected, count) in queries.items():
        query = parse_query(text)
        found = best_matches(findings, query)
        assert found == expected, text
        assert {query.count_matches(findings[number]) for number in found} == {count}, text


@given(tables(), SEEDS)
@examples(60)
def test_terms_that_are_missing_are_added_and_others_kept(table, seed):
    query = parse_query("shape=oval|round, margin=spiculated|angular, echo_pattern=anechoic")
    for findings in table[0]:
        changed = with_query_terms(findings, query, np.random.default_rng(seed))
        assert query.matches(changed)
        assert changed.birads == findings.birads
        if findings.shape in ("oval", "round"):
            assert changed.shape == findings.shape
        if {"spiculated", "angular"} & set(findings.margin):
            assert changed.margin == findings.margin
        assert with_query_terms(changed, query, np.random.default_rng(seed)) == changed


def test_each_of_several_terms_is_chosen_now_and_then():
    query = parse_query("margin=spiculated|angular")
    rng = np.random.default_rng(0)
    seen = Counter(with_query_terms(Findings(), query, rng).margin for _ in range(200))
    assert min(seen[("spiculated",)], seen[("angular",)]) > 70
