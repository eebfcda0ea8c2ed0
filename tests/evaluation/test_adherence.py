import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import balanced_accuracy_score

from stdiff.config.evaluation import EvaluationConfig
from stdiff.downstream.images import LabelledImages
from stdiff.evaluation.adherence import evaluate_adherence
from stdiff.filtering.scores import SEEN_TERMS

SIZE_PX = 48
SETTINGS = EvaluationConfig(bootstrap_draws=200, kid_subset_size=10, kid_subsets=5)
# Grey levels of a lesion in tissue of 130 that image analysis gives these names.
GREY = {"anechoic": 5, "hypoechoic": 70, "hyperechoic": 200}


def drawn(shown):
    """Images whose lesions show the given echo patterns, with their masks."""
    masks = np.zeros((len(shown), SIZE_PX, SIZE_PX), np.uint8)
    images = np.empty_like(masks)
    for i, term in enumerate(shown):
        masks[i, 10:24, 12 : 30 + i % 5] = 255
        speckle = np.random.default_rng(i).normal(0, 3, (SIZE_PX, SIZE_PX))
        images[i] = (np.where(masks[i] > 0, GREY[term], 130) + speckle).clip(0, 255)
    return LabelledImages(images, masks)


def adherence(asked, shown, groups=None, real=tuple(GREY)):
    rows = pd.DataFrame({"echo_pattern": list(asked), "posterior_features": None})
    test = pd.DataFrame({"echo_pattern": list(real), "posterior_features": None})
    return evaluate_adherence(
        rows,
        drawn(shown),
        np.array([f"g{i}" for i in range(len(rows))] if groups is None else groups),
        test.assign(group_id=[f"t{i}" for i in range(len(test))]),
        drawn(real),
        settings=SETTINGS,
        seed=0,
    )


def test_terms_that_are_shown_are_found():
    record = adherence(GREY, GREY)["echo_pattern"]
    assert (record["images"], record["balanced_accuracy"]) == (3, 1)
    assert record["chance"] == pytest.approx(1 / 3)


def test_a_rare_term_counts_as_much_as_a_common_one():
    asked = ["hypoechoic"] * 8 + ["hyperechoic"] * 2
    result = adherence(asked, ["hypoechoic"] * 10)
    assert result["echo_pattern"]["balanced_accuracy"] == pytest.approx(0.5)
    terms = result["by_term"]
    assert terms["echo_pattern: hypoechoic"]["found"] == 1
    assert terms["echo_pattern: hyperechoic"]["found"] == 0
    assert terms["echo_pattern: hyperechoic"]["images"] == 2


def test_a_rare_term_that_a_draw_misses_is_left_out_and_not_counted_as_missing():
    record = adherence(["hypoechoic"] * 9 + ["hyperechoic"], ["hypoechoic"] * 9 + ["hyperechoic"])
    # A draw misses the one rare image in a third of all cases.
    assert record["echo_pattern"]["balanced_accuracy_low"] == 1


def test_the_ceiling_is_of_real_images():
    result = adherence(["anechoic"], ["hypoechoic"], real=["hypoechoic", "hyperechoic"])
    assert result["echo_pattern"]["balanced_accuracy"] == 0
    assert result["ceiling"]["echo_pattern"]["balanced_accuracy"] == 1
    # No real test image has the term: what it would give there is not known.
    assert result["by_term"]["echo_pattern: anechoic"]["found_in_real"] is None


def test_what_nobody_asked_for_is_not_judged():
    result = adherence([None, "hypoechoic"], ["hyperechoic", "hypoechoic"])
    assert result["echo_pattern"]["images"] == 1
    assert result["posterior_features"]["balanced_accuracy"] is None
    assert result["posterior_features"]["chance"] is None


def test_images_of_one_mask_are_no_evidence_of_their_own():
    asked = ["hypoechoic"] * 20
    shown = ["hypoechoic"] * 10 + ["hyperechoic"] * 10
    single = adherence(asked, shown)["echo_pattern"]
    paired = adherence(asked, shown, groups=["a"] * 10 + ["b"] * 10)["echo_pattern"]
    alone = adherence(asked, shown, groups=["a"] * 20)["echo_pattern"]
    assert single["balanced_accuracy_low"] > 0.2 and single["balanced_accuracy_high"] < 0.8
    assert (paired["balanced_accuracy_low"], paired["balanced_accuracy_high"]) == (0, 1)
    assert alone["balanced_accuracy_low"] is None
    assert single["balanced_accuracy"] == paired["balanced_accuracy"] == 0.5


@pytest.mark.filterwarnings("ignore:y_pred contains:UserWarning", "ignore:A single label")
@settings(deadline=None, max_examples=15)
@given(st.lists(st.tuples(*[st.sampled_from(list(GREY))] * 2), min_size=1, max_size=8))
def test_accuracy_is_the_mean_of_the_shares_by_term(pairs):
    asked, shown = zip(*pairs, strict=True)
    result = adherence(asked, shown)
    shares = [term["found"] for term in result["by_term"].values()]
    record = result["echo_pattern"]
    assert record["balanced_accuracy"] == pytest.approx(np.mean(shares))
    assert record["balanced_accuracy"] == pytest.approx(balanced_accuracy_score(asked, shown))
    assert record["images"] == sum(t["images"] for t in result["by_term"].values()) == len(pairs)
    if record["groups"] > 1:
        assert record["balanced_accuracy_low"] <= record["balanced_accuracy_high"]
    assert set(result) == {*SEEN_TERMS, "ceiling", "by_term"}
