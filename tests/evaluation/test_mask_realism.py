import subprocess
import sys
from dataclasses import asdict

import numpy as np
import pandas as pd
import pytest
from drawn_masks import ellipse, squares
from hypothesis import given, settings
from hypothesis import strategies as st

from stdiff.birads.shape import measure
from stdiff.evaluation.mask_realism import (
    density_coverage,
    describe_masks,
    energy_distances,
    grouped_folds,
    near_copies,
    realism,
    two_sample_auc,
)
from stdiff.runtime.files import InputError
from stdiff.runtime.randomness import generator

COLUMNS = "abcd"


@pytest.fixture(autouse=True)
def few_trees(monkeypatch):
    """Enough for what is asserted here, in a fifth of the time."""
    monkeypatch.setattr("stdiff.evaluation.mask_realism._TREES", 60)


def ellipses(stream, count):
    rng = generator(0, stream)
    return np.stack(
        [
            ellipse(*rng.uniform(8, 18, 2), *np.round(rng.uniform(26, 38, 2), 2))
            for _ in range(count)
        ]
    )


def normal(stream, count=100, mean=0.0):
    values = generator(0, stream).normal(mean, 1, (count, len(COLUMNS)))
    return pd.DataFrame(values, columns=list(COLUMNS))


def test_masks_are_described_by_their_largest_lesion():
    large, speck = ellipse(12, 8, 13, 30), ellipse(1.2, 1.2, 50, 50)
    table = describe_masks(np.stack([large | speck, speck, ellipse(12, 8)]))
    first, found = table.iloc[0], measure(large)
    assert set(table.dtypes) == {np.dtype(float)}
    assert first["log_area_fraction"] == pytest.approx(np.log(found.area_fraction))
    assert first["log_aspect"] == pytest.approx(np.log(found.aspect))
    assert (first["centre_x"], first["centre_y"]) == pytest.approx(found.centroid)
    assert first["log_curvature_energy"] == pytest.approx(np.log(found.curvature_energy))
    for name in ("axis_ratio", "solidity", "compactness", "lobulations"):
        assert first[name] == getattr(found, name)
    assert table["lesion_count"].tolist() == [2, 1, 1]
    # A speck has no outline to speak of.
    unknown = ["compactness", "log_curvature_energy", "lobulations"]
    assert list(table.columns[table.iloc[1].isna()]) == unknown
    assert not table.iloc[[0, 2]].isna().any(axis=None)


@pytest.mark.parametrize("turns", range(4))
def test_the_border_is_touched_on_any_side_and_only_by_the_largest_lesion(turns):
    masks = [ellipse(10, 10, 9), ellipse(10, 10, 12), ellipse(10, 10) | ellipse(2, 2, 1)]
    masks.append(ellipse(10, 10, 10))  # its last pixels are those of the first column
    table = describe_masks(np.stack([np.rot90(mask, turns) for mask in masks]))
    assert table["touches_border"].tolist() == [1, 0, 0, 1]


def test_a_mask_without_a_lesion_is_named():
    masks = ellipses("a", 3)
    masks[1] = 0
    with pytest.raises(InputError, match="mask 1 .* no lesion"):
        describe_masks(masks)


def test_one_distribution_cannot_be_told_apart_and_another_shape_can():
    generated, real = describe_masks(ellipses("a", 100)), describe_masks(ellipses("b", 100))
    groups = np.arange(100)
    assert two_sample_auc(generated, real, groups, 0) == pytest.approx(0.5, abs=0.13)
    assert two_sample_auc(describe_masks(squares("a", 60)), real, groups, 0) > 0.95


def test_masks_of_one_patient_do_not_leak_from_one_fold_to_another():
    generated = normal("a", 120)
    real = normal("b", 20).loc[np.repeat(np.arange(20), 6)]
    patients = [f"patient {k // 6}" for k in range(120)]
    assert two_sample_auc(generated, real, patients, 0) < 0.65
    # So much would leak if each mask were taken for a patient of its own.
    assert two_sample_auc(generated, real, range(120), 0) > 0.85


@given(st.integers(10, 60), st.lists(st.integers(0, 12), min_size=60, max_size=90), st.integers(0))
@settings(max_examples=40, deadline=None)
def test_folds_test_each_mask_once_and_part_no_patient(generated, patients, seed):
    patients = [*patients, *range(5)]
    labels, folds = grouped_folds(generated, len(patients), patients, seed)
    assert labels.tolist() == [0] * generated + [1] * len(patients)
    assert sorted(np.concatenate([test for _, test in folds])) == list(range(len(labels)))
    for train, test in folds:
        assert sorted([*train, *test]) == list(range(len(labels)))
        sides = [
            {patients[k - generated] for k in part if k >= generated} for part in (train, test)
        ]
        assert not sides[0] & sides[1]
        assert set(labels[train]) == {0, 1}


def test_the_seed_alone_decides():
    generated, real, groups = normal("a", 30), normal("b", 30), range(30)
    first = two_sample_auc(generated, real, groups, 7)
    np.random.seed(5)
    assert two_sample_auc(generated, real, groups, 7) == first
    assert two_sample_auc(generated, real, groups, 8) != first


def test_missing_values_and_the_order_of_columns_do_no_harm():
    generated, real, groups = normal("a", 40), normal("b", 40, mean=8), range(40)
    generated.loc[::4, "b"] = np.nan
    real.loc[::5, "c"] = np.nan
    generated["d"] = np.nan
    found = two_sample_auc(generated, real, groups, 0)
    assert found > 0.95
    turned = generated[list(COLUMNS[::-1])]
    assert two_sample_auc(turned, real, groups, 0) == found
    assert density_coverage(turned, real) == density_coverage(generated, real) == (0, 0)
    distances = energy_distances(turned, real)
    assert distances["b"] > 1 and np.isnan(distances["d"])


def test_too_few_masks_or_patients_are_refused():
    few, enough = normal("a", 9), normal("b", 10)
    with pytest.raises(InputError, match="9 generated and 10 real masks; .* at least 10"):
        two_sample_auc(few, enough, range(10), 0)
    with pytest.raises(InputError, match="10 generated and 9 real masks"):
        two_sample_auc(enough, few, range(9), 0)
    with pytest.raises(InputError, match="4 patients"):
        two_sample_auc(enough, enough, np.arange(10) % 4, 0)
    with pytest.raises(InputError, match="9 groups for 10 real"):
        two_sample_auc(enough, enough, range(9), 0)
    with pytest.raises(InputError, match="at least 1 and 6"):
        density_coverage(enough, few[:5])
    with pytest.raises(InputError, match="at least 1 and 6"):
        density_coverage(few[:0], enough)


def test_the_energy_distance_is_in_real_standard_deviations_and_knows_no_order():
    real = normal("a", 3000)
    assert energy_distances(real.sample(frac=1, random_state=1), real) == pytest.approx(
        dict.fromkeys(COLUMNS, 0), abs=1e-6
    )
    moved = real + [0, 1, 2, 0]
    distances = energy_distances(moved, real)
    assert list(distances) == list(COLUMNS)
    assert distances["b"] == pytest.approx(0.73, abs=0.05)
    assert distances["c"] > 1.5 * distances["b"]
    shuffled = energy_distances(moved.sample(frac=1, random_state=1), real[::-1])
    assert shuffled == pytest.approx(distances)
    assert energy_distances(moved * 50 + 3, real * 50 + 3) == pytest.approx(distances)
    # Without a spread there is no unit but the column's own.
    still = pd.DataFrame({"a": np.zeros(9)})
    assert energy_distances(still + 2, still)["a"] == pytest.approx(2)


def test_density_and_coverage():
    real = normal("a", 200)
    assert density_coverage(real, real)[1] == 1
    density, coverage = density_coverage(normal("b", 200), real)
    assert density == pytest.approx(1, abs=0.25)
    assert coverage == pytest.approx(1 - 2**-5, abs=0.05)
    assert density_coverage(real + 100, real) == (0, 0)
    # All generated masks alike and usual: dense, but hardly anything is covered.
    density, coverage = density_coverage(real * 0, real)
    assert density > 1.5 and coverage < 0.3
    # Units do not matter.
    scales = np.array([1, 1e3, 1e-3, 7])
    assert density_coverage(normal("b", 200) * scales, real * scales) == pytest.approx(
        density_coverage(normal("b", 200), real)
    )


def test_density_and_coverage_by_hand():
    real = pd.DataFrame({"a": [0.0, 1.0, 2.0, 10.0]})
    # With one neighbour the balls are [-1, 1], [0, 2], [1, 3] and [2, 18].
    generated = pd.DataFrame({"a": [0.5, 2.5, -3.0]})
    assert density_coverage(generated, real, 1) == pytest.approx((4 / 3, 1.0))
    assert density_coverage(generated[:1], real, 1) == pytest.approx((2.0, 0.5))


def test_realism_combines_all_measures():
    generated, real, training = squares("a", 40), ellipses("b", 40), ellipses("c", 30)
    groups = np.arange(40) // 2
    found = realism(generated, real, groups, training, 3, network_auc=0.9)
    described = describe_masks(generated), describe_masks(real)
    assert asdict(found) == {
        "masks": 40,
        "descriptor_auc": two_sample_auc(*described, groups, 3),
        "network_auc": 0.9,
        "energy_distances": energy_distances(*described),
        "density": density_coverage(*described)[0],
        "coverage": density_coverage(*described)[1],
        "near_copies": near_copies(generated, training),
    }
    assert found.descriptor_auc > 0.9
    with pytest.raises(InputError, match="resize"):
        realism(generated[:, :60], real, groups, training, 3, network_auc=0.9)


def test_realism_knows_nothing_of_torch():
    code = "import sys, stdiff.evaluation.mask_realism; print('torch' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.stdout.strip() == "False", result.stderr
