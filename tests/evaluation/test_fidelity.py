import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stdiff.config.evaluation import EvaluationConfig
from stdiff.evaluation.fidelity import (
    disjoint_halves,
    evaluate_fidelity,
    frechet_distance,
    kid,
    rank_deficient,
)
from stdiff.runtime.files import InputError
from stdiff.runtime.randomness import generator


def normal(purpose, count=300, width=8, mean=0.0, spread=1.0):
    return generator(0, purpose).normal(mean, spread, (count, width)).astype(np.float32)


def test_kid_of_one_distribution_is_about_zero():
    mean, low, high = kid(normal("a"), normal("b"), 50, 100, generator(0, "kid"))
    assert low < 0 < high
    assert abs(mean) < 0.1


def test_kid_grows_with_the_shift():
    means = [
        kid(normal("a"), normal("b", mean=shift), 50, 50, generator(0, "kid"))[0]
        for shift in (0.0, 0.3, 0.6, 1.2)
    ]
    assert means == sorted(means)
    assert means[-1] > 1


def test_kid_against_the_formula_written_out():
    x, y = normal("x", 4, 3).astype(float), normal("y", 4, 3).astype(float)

    def kernel(a, b):
        return (a @ b / 3 + 1) ** 3

    pairs = [(i, j) for i in range(4) for j in range(4) if i != j]
    expected = (
        np.mean([kernel(x[i], x[j]) for i, j in pairs])
        + np.mean([kernel(y[i], y[j]) for i, j in pairs])
        - 2 * np.mean([kernel(a, b) for a in x for b in y])
    )
    assert kid(x, y, 4, 3, generator(0, "kid"))[0] == pytest.approx(expected)


def test_subsets_larger_than_a_side_are_refused():
    with pytest.raises(InputError, match="set kid_subset_size: 40 or less"):
        kid(normal("a"), normal("b", 40), 41, 10, generator(0, "kid"))


@given(
    shift=st.floats(-3, 3),
    spread_a=st.floats(0.2, 3),
    spread_b=st.floats(0.2, 3),
)
def test_frechet_distance_of_gaussians_in_closed_form(shift, spread_a, spread_b):
    # Whitened samples have exactly the mean and covariance asked for; then, for multiples of the
    # unit matrix, the distance is D (shift² + (spread_a - spread_b)²).
    width = 4

    def exact(purpose):
        sample = generator(0, purpose).normal(size=(60, width))
        centred = sample - sample.mean(axis=0)
        root = np.linalg.cholesky(np.cov(centred, rowvar=False))
        return np.linalg.solve(root, centred.T).T

    a, b = spread_a * exact("a"), spread_b * exact("b") + shift
    expected = width * (shift**2 + (spread_a - spread_b) ** 2)
    assert frechet_distance(a, b) == pytest.approx(expected, abs=1e-6)


def test_frechet_distance_of_correlated_gaussians():
    # Commuting covariances: eigenvalues (a_i) and (b_i) give sum (√a_i - √b_i)².
    turn = np.linalg.qr(generator(0, "turn").normal(size=(3, 3)))[0]
    sample = generator(0, "s").normal(size=(50, 3))
    centred = sample - sample.mean(axis=0)
    white = np.linalg.solve(np.linalg.cholesky(np.cov(centred, rowvar=False)), centred.T).T
    a = white * np.sqrt([4.0, 1.0, 0.25]) @ turn
    b = white * np.sqrt([1.0, 9.0, 0.25]) @ turn
    assert frechet_distance(a, b) == pytest.approx(1 + 4, abs=1e-8)


def test_frechet_distance_when_rank_deficient_is_flagged_and_finite():
    few, many = normal("few", 6), normal("many", 100)
    assert rank_deficient(few, many)
    assert not rank_deficient(normal("nine", 9), many)
    assert np.isfinite(frechet_distance(few, many))
    assert frechet_distance(few, few) == pytest.approx(0, abs=1e-6)


def records(**changes):
    values = {
        "generated": normal("generated", 80, mean=0.7),
        "training": normal("training", 120),
        "training_groups": np.arange(120) // 2,
        "test": normal("test", 81),
        "test_groups": np.arange(81) // 3,
        "encoder": "some encoder",
        "settings": EvaluationConfig(kid_subset_size=25, kid_subsets=20),
        "seed": 0,
    }
    return evaluate_fidelity(**(values | changes))


def test_generated_images_stand_beside_both_floors():
    generated, training, halves = records()
    assert generated["comparison"] == "generated vs real test"
    assert (generated["n_a"], generated["n_b"]) == (80, 81)
    assert (training["n_a"], training["n_b"]) == (80, 81)
    assert 75 <= halves["n_a"] + halves["n_b"] <= 81
    assert generated["kid"] > 5 * max(abs(training["kid"]), abs(halves["kid"]))
    assert generated["frechet_distance"] > training["frechet_distance"]
    assert {r["encoder"] for r in (generated, training, halves)} == {"some encoder"}
    assert not any("fid" in key.lower() for key in generated)


def test_same_seed_same_figures():
    assert records() == records()
    assert records(seed=1) != records()


@given(st.lists(st.integers(0, 9), min_size=2, max_size=60), st.integers(0, 99))
def test_halves_share_no_image_and_no_group(groups, seed):
    groups = np.array(groups)
    half, other = disjoint_halves(groups, generator(seed, "halves"))
    assert len(half) == len(groups) // 2
    assert not set(half) & set(other)
    assert not set(groups[half]) & set(groups[other])


def test_too_small_halves_are_refused():
    with pytest.raises(InputError, match="kid_subset_size"):
        records(settings=EvaluationConfig(kid_subset_size=60))
