"""Label budgets: how they are written, and which training cases they hold."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stdiff.runtime.files import InputError
from stdiff.table.cohort import Cohort
from stdiff.table.label_budget import LabelBudget

BUDGETS = st.builds(LabelBudget, st.integers(1, 100), st.booleans())


@given(BUDGETS)
def test_slug_and_words_both_name_the_budget(budget):
    assert LabelBudget.parse(budget.slug) == LabelBudget.parse(str(budget)) == budget


@pytest.mark.parametrize("text", ["0", "101", "ten", "-5", "4.5", "0 cases", "10 % cases", ""])
def test_what_is_no_budget_is_refused_with_an_example(text):
    with pytest.raises(ValueError, match=r"e\.g\. labels: \["):
        LabelBudget.parse(text)


def test_counts_come_before_shares():
    texts = ["100", "10", "200 cases", "40 cases"]
    assert [b.slug for b in sorted(map(LabelBudget.parse, texts))] == [
        *("40cases", "200cases", "10", "100"),
    ]


def tables(seed, groups=30):
    """Cases of groups of one to three, every fourth without a lesion; their training splits."""
    rng = np.random.default_rng(seed)
    of_group = np.repeat(np.arange(groups), rng.integers(1, 4, groups))
    names = [f"c{i:03d}" for i in range(len(of_group))]
    cases = pd.DataFrame(
        {
            "case_id": names,
            "mask": [b"png"] * len(names),
            "lesion_count": rng.integers(0, 4, len(names)).clip(0, 1),
        }
    )
    ranks = rng.permutation(groups) / groups
    splits = pd.DataFrame({"case_id": names, "role": "train", "label_rank": ranks[of_group]})
    splits.loc[of_group % 5 == 0, "role"] = "test"
    return cases, splits, pd.Series(of_group, index=names)


@given(st.integers(0, 10**6), st.integers(1, 12), st.integers(0, 3))
def test_a_number_of_cases_is_reached_with_whole_groups_and_no_more(seed, number, more):
    cases, splits, group_of = tables(seed)
    rows = Cohort(cases, splits).labelled_training(LabelBudget(number, is_percent=False))
    ranks = splits.set_index("case_id")["label_rank"]
    last = ranks[rows["case_id"]].max()
    assert (ranks[rows["case_id"]] < last).sum() < number <= len(rows)
    training = splits.loc[splits["role"] == "train", "case_id"]
    with_lesion = set(cases.loc[cases["lesion_count"] > 0, "case_id"]) & set(training)
    groups = set(group_of[rows["case_id"]])
    assert set(rows["case_id"]) == {c for c in with_lesion if group_of[c] in groups}
    larger = Cohort(cases, splits).labelled_training(LabelBudget(number + more, is_percent=False))
    assert set(rows["case_id"]) <= set(larger["case_id"])


def test_lesion_free_images_lie_within_the_same_ranks():
    cases, splits, _ = tables(3)
    budget = LabelBudget(10, is_percent=False)
    ranks = splits.set_index("case_id")["label_rank"]
    last = ranks[Cohort(cases, splits).labelled_training(budget)["case_id"]].max()
    free = Cohort(cases, splits).lesion_free_training(budget)["case_id"]
    training = splits["role"].eq("train").to_numpy() & (cases["lesion_count"] == 0).to_numpy()
    assert set(free) == {c for c in cases["case_id"][training] if ranks[c] <= last}


def test_more_cases_than_there_are_is_refused_with_their_number():
    cases, splits, _ = tables(0)
    every = Cohort(cases, splits).labelled_training(LabelBudget(100, is_percent=True))
    with pytest.raises(InputError, match=rf"labels: \[{len(every)} cases\]"):
        Cohort(cases, splits).labelled_training(LabelBudget(len(every) + 1, is_percent=False))
