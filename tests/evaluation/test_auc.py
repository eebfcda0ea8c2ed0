"""AUC by arm: against scikit-learn, and what its intervals are of."""

import json

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from stdiff.config.run import load_config
from stdiff.evaluation.auc import auc_table_text, evaluate_auc, mean_auc
from stdiff.runtime.files import InputError

BIRADS = ("2", "3", "4", "5")


def scored(seed, classes, count=60, seeds=2, levels=8, signal=1.0):
    """Cases of 30 groups whose scores, rounded to a few levels, know a little of the truth."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, len(classes), count)
    tables = []
    for number in range(seeds):
        scores = rng.normal(size=(count, len(classes)))
        scores[np.arange(count), truth] += signal
        scores = np.round(np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True) * levels)
        table = pd.DataFrame({f"p_{c}": scores[:, i] for i, c in enumerate(classes)})
        table["truth"] = np.array(classes)[truth]
        table["case_id"] = [f"c{i:03d}" for i in range(count)]
        table["group_id"] = [f"g{i // 2}" for i in range(count)]
        tables.append(table.assign(repetition=number, collection="busi", role="test"))
    return pd.concat(tables, ignore_index=True)


def of_sklearn(rows, classes):
    positive = classes[1:] if len(classes) == 2 else classes
    return np.mean(
        [
            [roc_auc_score(one["truth"] == c, one[f"p_{c}"]) for c in positive]
            for _, one in rows.groupby("repetition")
        ]
    )


@given(st.integers(0, 10**6), st.sampled_from([("benign", "malignant"), BIRADS]))
def test_the_mean_is_that_of_scikit_learn_ties_included(seed, classes):
    rows = scored(seed, classes)
    auc, drawn, sd = mean_auc(rows, classes, 20, np.random.default_rng(0))
    assert auc == pytest.approx(of_sklearn(rows, classes))
    assert drawn.shape == (20,)
    assert sd >= 0
    shuffled = rows.sample(frac=1, random_state=seed)
    again, same, _ = mean_auc(shuffled, classes, 20, np.random.default_rng(0))
    assert again == pytest.approx(auc)
    np.testing.assert_allclose(same, drawn)


def test_a_draw_is_the_auc_of_the_groups_it_takes():
    rows = scored(1, ("benign", "malignant"), count=8, seeds=1)
    _, drawn, _ = mean_auc(rows, ("benign", "malignant"), 5, np.random.default_rng(7))
    taken = np.random.default_rng(7).multinomial(4, [0.25] * 4, size=5)
    for value, counts in zip(drawn, taken, strict=True):
        again = rows.loc[np.repeat(rows.index, counts[rows["group_id"].str[1:].astype(int)])]
        if again["truth"].nunique() < 2:
            assert np.isnan(value)
        else:
            assert value == pytest.approx(of_sklearn(again, ("benign", "malignant")))


def test_a_category_without_cases_is_left_out():
    rows = scored(2, BIRADS)
    rows = rows[rows["truth"] != "5"]
    assert mean_auc(rows, BIRADS, 5, np.random.default_rng(0))[0] == pytest.approx(
        of_sklearn(rows, BIRADS[:3])
    )
    of_one = rows[rows["truth"] == "2"]
    assert np.isnan(mean_auc(of_one, BIRADS, 5, np.random.default_rng(0))[0])


@pytest.fixture
def measured(tmp_path, pytestconfig):
    def measure(**signals):
        tables = []
        for arm, signal in signals.items():
            rows = scored(3, ("benign", "malignant"), count=120, levels=1000, signal=signal)
            tables.append(tmp_path / f"{arm}.parquet")
            rows.assign(target="pathology", arm=arm, labels="10 %").to_parquet(tables[-1])
        config = load_config(pytestconfig.rootpath / "config" / "demo.yaml")
        evaluate_auc(tables, tmp_path / "auc.json", config=config)
        return json.loads((tmp_path / "auc.json").read_text())

    return measure


def test_a_better_arm_gains_and_an_equal_one_does_not(measured):
    result = measured(real=0.5, mixed=2.5, same=0.5)
    gains = {(g["arm"], g["collection"]): g for g in result["gains"]}
    better, same = gains["mixed", "pooled"], gains["same", "pooled"]
    assert 0 < better["gain_low"] < better["gain_mean"] < better["gain_high"]
    assert better["holm_p"] < 0.01
    assert (same["gain_mean"], same["gain_low"], same["gain_high"]) == (0, 0, 0)
    assert same["holm_p"] == 1
    of = {r["arm"]: r for r in result["by_arm"] if r["collection"] == "pooled"}
    [line] = [x for x in auc_table_text(result).splitlines() if "pooled" in x and "mixed" in x]
    assert f"{of['mixed']['auc_mean']:.3f} [" in line and f"{better['gain_mean']:+.3f} [" in line
    assert better["gain_mean"] == pytest.approx(of["mixed"]["auc_mean"] - of["real"]["auc_mean"])
    assert (of["real"]["cases"], of["real"]["groups"], of["real"]["seeds"]) == (
        120,
        60,
        2,
    )


def test_arms_tested_on_other_cases_are_refused(tmp_path, pytestconfig):
    rows = scored(4, ("benign", "malignant")).assign(target="pathology", labels="10 %")
    rows.assign(arm="real").to_parquet(tmp_path / "a")
    rows[rows["case_id"] != "c007"].assign(arm="mixed").to_parquet(tmp_path / "b")
    config = load_config(pytestconfig.rootpath / "config" / "demo.yaml")
    with pytest.raises(
        InputError, match="pathology, mixed-10, repetition 0: 1 case\\(s\\) absent, e.g. c007"
    ):
        evaluate_auc([tmp_path / "a", tmp_path / "b"], tmp_path / "auc.json", config=config)
