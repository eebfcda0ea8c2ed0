import json
import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stdiff.config.run import parse_config
from stdiff.evaluation.arm_choice import choose_arms
from stdiff.evaluation.gain import dice_by_arm, evaluate_gain, gain_table_text, gains
from stdiff.evaluation.learning_curve import worth
from stdiff.evaluation.statistics import (
    bootstrap_means,
    effect_size,
    group_bootstrap,
    holm,
    minimum_detectable_effect,
    signed_rank_p,
)
from stdiff.evaluation.subgroups import subgroup_gains
from stdiff.runtime.files import InputError
from stdiff.runtime.randomness import generator

STAGE = {"images": 64, "batch": 8}
CONFIG = parse_config(
    {
        "run": "t",
        "collections": {"busi": {"path": "x"}},
        "training": {"autoencoder": STAGE, "pretrain": STAGE, "finetune": STAGE},
        "corpus": {"count": 200},
        "segmentation": {"training": STAGE},
        "evaluation": {"bootstrap_draws": 500},
    }
)


def per_case(arm, gain=0.0, *, cases=40, seeds=(0, 1), percent=10, noise=0.02):
    """Dice of a training in which each case has its own level, plus a gain."""
    rng = generator(0, "levels")
    level = rng.uniform(0.3, 0.8, cases)
    rows = []
    for seed in seeds:
        wobble = generator(0, f"wobble {arm}", seed).normal(0, noise, cases)
        for case in range(cases):
            rows.append(
                {
                    "case_id": f"c{case:03d}",
                    "collection": "busi" if case % 2 else "bus_bra",
                    "group_id": f"g{case // 2}",
                    "segmenter": "unet",
                    "arm": arm,
                    "labels": f"{percent} %",
                    "repetition": seed,
                    "dice": level[case] + gain + wobble[case],
                    "iou": 0.5,
                    "hd95_px": 3.0,
                    "training_real": 4 * percent,
                }
            )
    return pd.DataFrame(rows)


def test_interval_covers_the_mean_about_as_often_as_it_says():
    covered = 0
    for trial in range(100):
        values = generator(trial, "trial").normal(2.0, 1.0, 80)
        low, high = group_bootstrap(values, np.arange(80), 400, generator(trial, "draws"))
        covered += low < 2.0 < high
    assert 87 <= covered <= 100


def test_repeated_cases_of_a_group_do_not_narrow_the_interval():
    values = generator(1, "values").normal(0, 1, 40)
    single = group_bootstrap(values, np.arange(40), 2000, generator(1, "draws"))
    repeated, groups = np.repeat(values, 5), np.repeat(np.arange(40), 5)
    clustered = group_bootstrap(repeated, groups, 2000, generator(1, "draws"))
    naive = group_bootstrap(repeated, np.arange(200), 2000, generator(1, "draws"))
    np.testing.assert_allclose(clustered, single)
    assert np.diff(clustered) > 1.8 * np.diff(naive)


def test_a_draw_averages_cases_and_not_groups():
    # Two groups of one case and of nine: a draw holds both (mean 0.9), or one of them twice.
    values, groups = np.repeat([0.0, 1.0], [1, 9]), np.repeat(["a", "b"], [1, 9])
    means = bootstrap_means(values[:, None], groups, 400, generator(2, "draws"))
    assert set(means[:, 0].round(9)) == {0.0, 0.9, 1.0}


def test_p_and_effect_size_are_of_groups_and_not_of_cases():
    # Each group has ten cases that all differ alike from the baseline.
    real = per_case("real", cases=60, noise=0, seeds=(0,)).assign(collection="busi")
    real["group_id"] = [f"g{case // 10}" for case in range(60)]
    by_group = np.array([0.03, -0.01, 0.02, 0.01, 0.04, 0.05])
    mixed = real.assign(arm="mixed", dice=real["dice"] + np.repeat(by_group, 10))
    pooled = gains(pd.concat([real, mixed]), draws=100, seed=0).iloc[0]
    assert pooled["wilcoxon_p"] == pytest.approx(signed_rank_p(by_group))
    assert pooled["wilcoxon_p"] > 100 * signed_rank_p(np.repeat(by_group, 10))
    assert pooled["effect_size"] == pytest.approx(effect_size(by_group))


def test_one_group_has_no_interval():
    assert all(map(math.isnan, group_bootstrap(np.ones(3), np.zeros(3), 100, generator(0, "x"))))


def test_draws_in_several_blocks():
    low, high = group_bootstrap(np.arange(10.0), np.arange(10), 2500, generator(0, "x"))
    assert low < 4.5 < high


def test_holm_against_known_values():
    # Worked by hand: sorted .01 .02 .03 .04 times 4 3 2 1, then made non-decreasing.
    np.testing.assert_allclose(holm(np.array([0.04, 0.01, 0.03, 0.02])), [0.06, 0.04, 0.06, 0.06])
    np.testing.assert_allclose(holm(np.array([0.5, 0.9])), [1.0, 1.0])
    np.testing.assert_allclose(holm(np.array([0.03])), [0.03])


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holm_never_lowers_and_keeps_the_order(p_values):
    p = np.array(p_values)
    adjusted = holm(p)
    assert (adjusted >= p).all()
    assert (adjusted <= 1).all()
    assert (np.diff(adjusted[np.argsort(p, kind="stable")]) >= 0).all()


def test_signed_rank():
    assert signed_rank_p(np.zeros(10)) == 1.0
    assert signed_rank_p(np.linspace(0.1, 1, 20)) < 0.001
    assert signed_rank_p(np.tile([-1.0, 1.0], 10)) > 0.9


def test_identical_arms_gain_nothing():
    real = per_case("real")
    table = gains(pd.concat([real, real.assign(arm="mixed")]), draws=500, seed=0)
    assert set(table["collection"]) == {"pooled", "busi", "bus_bra"}
    assert (table[["gain_mean", "gain_low", "gain_high"]] == 0).all(axis=None)
    assert (table[["wilcoxon_p", "holm_p"]] == 1).all(axis=None)


def test_a_known_gain_is_found_at_its_own_label_budget():
    tables = [
        per_case("real"),
        per_case("mixed", 0.05),
        per_case("real", 0.1, percent=100),
        per_case("mixed", 0.1, percent=100),
    ]
    table = gains(pd.concat(tables), draws=1000, seed=0).set_index(["collection", "labels"])
    few = table.loc[("pooled", "10 %")]
    assert few["gain_mean"] == pytest.approx(0.05, abs=0.01)
    assert 0 < few["gain_low"] < few["gain_mean"] < few["gain_high"]
    assert few["wilcoxon_p"] < few["holm_p"] < 0.01
    assert (few["cases"], few["groups"], few["seeds"]) == (40, 20, 2)
    assert abs(table.loc[("pooled", "100 %"), "gain_mean"]) < 0.01


def test_seeds_are_averaged_per_case_first():
    # Two seeds that err in opposite ways are one value a case, not two.
    real = per_case("real", noise=0)
    mixed = real.assign(arm="mixed")
    mixed["dice"] += np.where(mixed["repetition"] == 0, 0.1, -0.1)
    table = gains(pd.concat([real, mixed]), draws=200, seed=0)
    np.testing.assert_allclose(table[["gain_mean", "gain_low", "gain_high"]], 0, atol=1e-12)
    assert set(table["cases"]) == {20, 40}
    arms = dice_by_arm(pd.concat([real, mixed]), 200, 0).set_index(["arm", "collection"])
    assert arms.loc[("real", "pooled"), "dice_seed_sd"] == pytest.approx(0)
    assert arms.loc[("mixed", "pooled"), "dice_seed_sd"] == pytest.approx(0.1 * np.sqrt(2))


def test_paired_intervals_are_narrower_than_those_of_the_arms():
    both = pd.concat([per_case("real"), per_case("mixed", 0.05)])
    arm = dice_by_arm(both, 500, 0).query("collection == 'pooled'").iloc[0]
    gain = gains(both, draws=500, seed=0).query("collection == 'pooled'").iloc[0]
    assert gain["gain_high"] - gain["gain_low"] < 0.5 * (arm["dice_high"] - arm["dice_low"])


def test_a_missing_pair_is_refused():
    mixed = per_case("mixed")
    with pytest.raises(InputError, match=r"mixed-10, repetition 1: 1 case\(s\) absent, e.g. c039"):
        gains(pd.concat([per_case("real"), mixed[:-1]]), draws=100, seed=0)
    with pytest.raises(InputError, match="no table of the baseline arm real-10"):
        gains(mixed, draws=100, seed=0)
    with pytest.raises(InputError, match="is repeated"):
        dice_by_arm(pd.concat([mixed, mixed]), 100, 0)
    with pytest.raises(InputError, match="group_id"):
        dice_by_arm(mixed.drop(columns="group_id"), 100, 0)


def test_written_json_and_its_table(tmp_path):
    real, mixed = per_case("real"), per_case("mixed", 0.05)
    # One case with both masks empty in one training leaves every arm.
    mixed.loc[mixed["case_id"].eq("c005") & mixed["repetition"].eq(1), "dice"] = np.nan
    for name, table in {"a": real, "b": mixed}.items():
        table.to_parquet(tmp_path / f"{name}.parquet")
    out = tmp_path / "gain.json"
    evaluate_gain([tmp_path / "a.parquet", tmp_path / "b.parquet"], out, config=CONFIG)
    result = json.loads(out.read_text())
    assert result["excluded_both_empty"] == 1
    pooled = [r for r in result["by_arm"] if r["collection"] == "pooled"]
    assert [r["cases"] for r in pooled] == [39, 39]
    assert {r["collection"] for r in result["gains"]} == {"pooled", "busi", "bus_bra"}
    text = gain_table_text(result)
    assert len(text.splitlines()) == 1 + 6 + 2
    assert "+0.0" in text
    assert "left out: 1 case" in text
    again = tmp_path / "again.json"
    evaluate_gain([tmp_path / "b.parquet", tmp_path / "a.parquet"], again, config=CONFIG)
    assert again.read_text() == out.read_text()


def test_validation_lesions_choose_the_arm_and_have_no_say_in_the_gain(tmp_path):
    real, mixed = per_case("real"), per_case("mixed", 0.05)
    results = []
    for validation_dice in (0.9, 0.0):
        parts = {"a": real.assign(role="test"), "b": mixed.assign(role="test")}
        for name, table in parts.items():
            seen = table.assign(role="validation", dice=validation_dice if name == "a" else 0.5)
            seen["case_id"] = "v" + seen["case_id"]
            parts[name] = pd.concat([seen, table])
        paths = [tmp_path / f"{name}.parquet" for name in parts]
        for path, table in zip(paths, parts.values(), strict=True):
            table.to_parquet(path)
        evaluate_gain(paths, tmp_path / "gain.json", config=CONFIG)
        results.append(json.loads((tmp_path / "gain.json").read_text()))
    real, mixed = (r.pop("chosen")[0] for r in results)
    assert (real["arm"], mixed["arm"]) == ("real", "mixed")
    assert results[0] == results[1]
    pooled = next(r for r in results[0]["gains"] if r["collection"] == "pooled")
    for name in ("gain_mean", "gain_low", "gain_high", "holm_p"):
        assert (real[name], mixed[name]) == (None, pooled[name])


def test_missing_tables_are_named(tmp_path):
    with pytest.raises(InputError, match="absent.parquet"):
        evaluate_gain([tmp_path / "absent.parquet"], tmp_path / "o.json", config=CONFIG)
    with pytest.raises(InputError, match="no per-case table"):
        evaluate_gain([], tmp_path / "o.json", config=CONFIG)


def test_test_lesions_have_no_say_in_the_choice():
    tables = [per_case("real"), per_case("mixed", 0.1)]
    seen = pd.concat(tables).assign(role="validation")
    tested = pd.concat([per_case("real", 0.5), per_case("mixed")]).assign(role="test")
    chosen = choose_arms(pd.concat([seen, tested]))
    assert chosen[["segmenter", "labels", "arm"]].to_numpy().tolist() == [["unet", "10 %", "mixed"]]
    expected = seen.loc[seen["arm"] == "mixed", "dice"].mean()
    assert chosen["validation_dice"].item() == pytest.approx(expected)
    shuffled = pd.concat([tested, seen]).sample(frac=1, random_state=0)
    pd.testing.assert_frame_equal(choose_arms(shuffled), chosen)
    assert choose_arms(tested).empty
    assert choose_arms(pd.concat(tables)).empty


def test_an_arm_is_not_chosen_for_the_cases_it_has_no_dice_of():
    real, worse = per_case("real", noise=0), per_case("mixed", -0.01, noise=0)
    worse.loc[worse["dice"] < worse["dice"].quantile(0.3), "dice"] = np.nan  # the hard ones
    chosen = choose_arms(pd.concat([real, worse]).assign(role="validation"))
    assert chosen["arm"].tolist() == ["real"]


def test_effect_size():
    assert effect_size(np.array([1.0, 2.0, 3.0])) == pytest.approx(2)
    assert np.isnan(effect_size(np.array([1.0]))) and np.isnan(effect_size(np.full(4, 0.2)))
    level = generator(0, "level").uniform(0.3, 0.8, 20)
    assert np.isnan(effect_size((level + 0.05) - level))  # equal but for rounding


def test_a_gain_as_large_as_the_smallest_shown_is_found_in_four_of_five_tests():
    found = 0
    for trial in range(400):
        rng = generator(trial, "trial")
        groups = np.repeat(np.arange(60), 3)
        noise = np.repeat(rng.normal(0, 1, 60), 3) + rng.normal(0, 0.5, 180)
        smallest = minimum_detectable_effect(noise, groups)
        error = smallest / 2.8
        found += noise.mean() + smallest > 1.96 * error
    assert 0.72 <= found / 400 <= 0.88
    assert np.isnan(minimum_detectable_effect(np.ones(3), np.zeros(3)))


def test_groups_as_large_as_one_case_give_the_ordinary_standard_error():
    values = generator(3, "values").normal(0, 1, 50)
    error = values.std(ddof=1) / np.sqrt(50)
    assert minimum_detectable_effect(values, np.arange(50)) == pytest.approx(2.8 * error)


def curve(dice_of, arm="real"):
    """Exact Dice for every case at each label budget."""
    return pd.concat([per_case(arm, gain, percent=p, noise=0) for p, gain in dice_of.items()])


def test_what_an_arm_is_worth_is_read_off_the_baseline():
    # 40, 160 and 400 real cases; Dice rises by 0.1 from each to the next.
    real = curve({10: 0.0, 40: 0.1, 100: 0.2})
    half = curve({10: 0.05, 100: 0.1}, "mixed")
    table = worth(pd.concat([real, half]), "real", 500, 0).set_index("labels")
    between = np.sqrt(40 * 160)  # half the way in the logarithm
    assert table.loc["10 %", "worth_mean"] == pytest.approx(between - 40)
    assert table.loc["100 %", "worth_mean"] == pytest.approx(160 - 400)
    # Every case gains alike, so there is nothing for the bootstrap to spread.
    assert table.loc["10 %", ["worth_low", "worth_high"]].tolist() == pytest.approx(
        [between - 40] * 2
    )
    assert table["beyond"].tolist() == ["", ""]


def test_nothing_is_read_beyond_the_curve():
    real = curve({10: 0.0, 100: 0.2})
    arms = [curve({10: 0.3}, "more"), curve({10: -0.1}, "less")]
    table = worth(pd.concat([real, *arms]), "real", 200, 0).set_index("arm")
    assert table["worth_mean"].to_dict() == {"more": pytest.approx(360), "less": pytest.approx(0)}
    assert table["beyond"].to_dict() == {"more": "more", "less": "less"}
    level = worth(pd.concat([curve({10: 0.0, 100: 0.0}), arms[0]]), "real", 200, 0).iloc[0]
    assert (level["worth_mean"], level["beyond"]) == (pytest.approx(360), "more")
    assert worth(pd.concat([curve({10: 0.0}), *arms]), "real", 200, 0).empty


def test_the_interval_of_the_worth_widens_with_the_noise():
    real = curve({10: 0.0, 100: 0.2})
    widths = []
    for noise in (0.02, 0.2):
        arm = per_case("mixed", 0.1, noise=noise, seeds=(0,))
        row = worth(pd.concat([real, arm]), "real", 1000, 0).iloc[0]
        assert row["worth_low"] <= row["worth_mean"] <= row["worth_high"]
        widths.append(row["worth_high"] - row["worth_low"])
    assert widths[0] < widths[1]


def test_a_curve_that_falls_is_held_level():
    real = curve({10: 0.1, 40: 0.0, 100: 0.2})
    arm = curve({10: 0.15}, "mixed")
    row = worth(pd.concat([real, arm]), "real", 200, 0).iloc[0]
    # Level from 40 to 160 cases, then half the way to 400.
    assert row["worth_mean"] == pytest.approx(np.sqrt(160 * 400) - 40)
    # A curve that barely rises instead is worth hardly less.
    rises = curve({10: 0.1, 40: 0.1001, 100: 0.2})
    close = worth(pd.concat([rises, arm]), "real", 200, 0).iloc[0]
    assert close["worth_mean"] == pytest.approx(row["worth_mean"], rel=0.01)


def test_an_interval_is_open_beyond_the_curve_and_none_of_one_group():
    real = curve({10: 0.0, 100: 0.2})
    arm = per_case("mixed", 0.19, noise=0.2, seeds=(0,))
    row = worth(pd.concat([real, arm]), "real", 1000, 0).iloc[0]
    assert (row["beyond"], row["worth_high"]) == ("", np.inf)
    assert np.isfinite(row["worth_low"])
    one_group = pd.concat([real, arm]).assign(group_id="g")
    row = worth(one_group, "real", 100, 0).iloc[0]
    assert np.isfinite(row["worth_mean"])
    assert np.isnan([row["worth_low"], row["worth_high"]]).all()


def with_parts(table):
    number = table["case_id"].str[1:].astype(int)
    return table.assign(
        pathology=np.where(number < 30, "benign", "malignant"),
        birads=None,
        lesion_pixels=number,
    )


def test_gains_of_subgroups():
    mixed = per_case("mixed", noise=0)
    number = mixed["case_id"].str[1:].astype(int)
    mixed["dice"] += np.where(number < 30, 0.02, 0.1)
    table = subgroup_gains(
        with_parts(pd.concat([per_case("real", noise=0), mixed])), "real", 500, 0
    ).set_index(["subgroup", "value"])
    assert table.loc[("pathology", "benign"), "gain_mean"] == pytest.approx(0.02)
    malignant = table.loc[("pathology", "malignant")]
    assert (malignant["cases"], malignant["groups"]) == (10, 5)
    assert malignant["gain_mean"] == pytest.approx(0.1) and np.isnan(malignant["gain_low"])
    sizes = table.loc["lesion size"]
    assert sizes["cases"].to_dict() == {"small": 14, "middle": 13, "large": 13}
    assert sizes.loc["small", "gain_mean"] == pytest.approx(0.02)
    assert "birads" not in table.index.get_level_values(0)


def test_subgroups_do_not_depend_on_the_order_of_rows():
    rows = with_parts(pd.concat([per_case("real"), per_case("mixed", 0.05)]))
    expected = subgroup_gains(rows, "real", 200, 0)
    shuffled = subgroup_gains(rows.sample(frac=1, random_state=1), "real", 200, 0)
    pd.testing.assert_frame_equal(shuffled, expected)
