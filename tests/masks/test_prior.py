import json

import numpy as np
import pytest
from drawn_masks import (
    SEEDS,
    edited,
    examples,
    small_prior,
)
from hypothesis import given
from hypothesis import strategies as st

from stdiff.birads.shape import measure
from stdiff.masks.curvature import CurvatureSource
from stdiff.masks.prior import FEATURES, Prior
from stdiff.runtime.files import InputError

AREA = FEATURES.index("area_fraction")
LEAF = "benign, oval, parallel, circumscribed"


def message_of(tmp_path, change):
    """What is said of a prior's file after a change to it; it must be refused."""
    values = small_prior().model_dump(mode="json", exclude_none=True)
    change(values)
    path = tmp_path / "edited.json"
    path.write_text(json.dumps(values))
    with pytest.raises(InputError) as error:
        Prior.load(path)
    assert str(path) in str(error.value) and "stdiff masks fit" in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("keep_scores", [True, False])
def test_a_prior_is_read_as_it_was_written(tmp_path, keep_scores):
    prior = small_prior(keep_scores)
    prior.write(tmp_path / "prior.json")
    read = Prior.load(tmp_path / "prior.json")
    assert read == prior
    for group in ("all", LEAF):
        drawn = [p.draw(group, 20, np.random.default_rng(1)) for p in (prior, read)]
        assert np.array_equal(*drawn)
    assert any(group.scores for group in read.groups.values()) == keep_scores


def test_the_file_has_a_line_for_each_feature_group_and_entry(tmp_path):
    prior = small_prior()
    prior.write(tmp_path / "prior.json")
    lines = (tmp_path / "prior.json").read_text().splitlines()
    for name in [*FEATURES, *prior.groups]:
        assert sum(line.startswith(f'  "{name}": ') for line in lines) == 1, name
    assert sum(line.startswith('  {"masks": ') for line in lines) == len(prior.findings)


def test_the_prior_that_comes_with_the_package_draws_masks():
    prior = Prior.default()
    assert prior.about and Prior.default() is prior
    sampled = CurvatureSource(prior, 128, 128).sample(np.random.default_rng(0))
    assert measure(sampled.mask).orientation == sampled.findings.orientation


@given(SEEDS, st.sampled_from(["all", "benign", LEAF]), st.booleans())
@examples(60)
def test_drawn_features_are_within_their_quantiles(seed, group, keep_scores):
    prior = small_prior(keep_scores)
    drawn = prior.draw(group, 50, np.random.default_rng(seed))
    assert drawn.shape == (50, len(FEATURES))
    for j, name in enumerate(FEATURES):
        knots = prior.features[name]
        assert knots[0] <= drawn[:, j].min() <= drawn[:, j].max() <= knots[-1]


@pytest.mark.parametrize("keep_scores", [True, False])
def test_all_masks_together_are_drawn_with_their_own_quantiles(keep_scores):
    prior = small_prior(keep_scores)
    drawn = prior.draw("all", 4000, np.random.default_rng(0))
    for j, name in enumerate(FEATURES):
        knots = np.array(prior.features[name])
        spread = knots[-1] - knots[0]
        found = np.quantile(drawn[:, j], (0.25, 0.5, 0.75))
        assert found == pytest.approx(knots[[10, 20, 30]], abs=0.08 * spread), name


@pytest.mark.parametrize("group", ["all", "malignant", "malignant, irregular, parallel", LEAF])
def test_a_group_is_drawn_around_its_mean_with_or_without_scores(group):
    masks, gaussian, everything = (
        small_prior(keep).draw(name, 3000, np.random.default_rng(0))[:, :5]
        for keep, name in ((True, group), (False, group), (True, "all"))
    )
    spread = everything.std(axis=0)
    assert not np.array_equal(masks, gaussian)
    assert (np.abs(masks.mean(axis=0) - gaussian.mean(axis=0)) / spread).max() < 0.25


@pytest.mark.parametrize("keep_scores", [True, False])
@pytest.mark.parametrize("group", [LEAF, "malignant, irregular, parallel", "benign", "all"])
def test_a_group_moved_to_larger_areas_has_larger_lesions(group, keep_scores):
    def larger(values):
        values["groups"][group]["mean"]["area_fraction"] += 1

    prior = small_prior(keep_scores)
    areas, moved = (
        p.draw(group, 1000, np.random.default_rng(0))[:, AREA]
        for p in (prior, edited(prior, larger))
    )
    # One standard deviation of all masks, or nearly so: the quantiles end somewhere.
    spread = np.std(prior.draw("all", 1000, np.random.default_rng(1))[:, AREA])
    assert moved.mean() - areas.mean() > 0.4 * spread
    assert (moved >= areas).all()


@pytest.mark.parametrize("keep_scores", [True, False])
def test_a_wider_group_is_drawn_wider(keep_scores):
    def wider(values):
        values["groups"][LEAF]["scale"]["centre_x"] *= 3

    column = FEATURES.index("centre_x")
    spreads = [
        p.draw(LEAF, 1000, np.random.default_rng(0))[:, column].std()
        for p in (small_prior(keep_scores), edited(small_prior(keep_scores), wider))
    ]
    assert spreads[1] > 1.15 * spreads[0]


def test_a_group_that_is_not_there_is_that_above_it():
    prior = small_prior()
    path = LEAF.split(", ")
    assert prior.group(path) == LEAF
    assert prior.group([*path[:3], "unclear"]) == "benign, oval, parallel"
    assert prior.group([*path[:3], None]) == "benign, oval, parallel"
    assert prior.group(["benign", "square", "parallel", "unclear"]) == "benign"
    assert prior.group(["benign", None, "parallel", "circumscribed"]) == "benign"
    assert prior.group(["normal"]) == prior.group([None]) == prior.group([]) == "all"


# A change to the file, and what must be said of it.
INVALID = {
    "negative scale": (
        lambda v: v["groups"]["benign"]["scale"].update(elongation=-1),
        ("groups.benign.scale.elongation", "-1"),
    ),
    "area above 1": (
        lambda v: v["features"]["area_fraction"].__setitem__(-1, 1.4),
        ("features.area_fraction", "1.4", "0 to 1"),
    ),
    "descending quantiles": (
        lambda v: v["features"]["centre_x"].__setitem__(3, 0.1),
        ("features.centre_x", "ascending"),
    ),
    "missing feature": (
        lambda v: v["features"].pop("obliquity"),
        ("features: obliquity is missing",),
    ),
    "missing mean": (
        lambda v: v["groups"]["malignant"]["mean"].pop("centre_y"),
        ("groups.malignant.mean: centre_y is missing",),
    ),
    "unknown feature": (
        lambda v: v["groups"]["all"]["mean"].update(size=1),
        ("groups.all.mean: size is not a feature",),
    ),
    "misspelt group": (
        lambda v: v["groups"].update({"benign, ovall": v["groups"]["benign, round"]}),
        ("groups", "benign, ovall", "oval, round, irregular"),
    ),
    "misspelt column": (
        lambda v: v["findings"][2]["findings"].update(shap="oval"),
        ("findings.2", "shap"),
    ),
    "unknown key": (lambda v: v.update(borders=1), ("borders",)),
    "no correlation": (
        lambda v: v["groups"][LEAF]["correlation"][0].__setitem__(1, 3),
        (f"groups.{LEAF}.correlation", "positive definite"),
    ),
    "short correlation": (
        lambda v: v["groups"]["benign, round"]["correlation"].pop(),
        ("groups.benign, round.correlation", "positive definite"),
    ),
    "short scores": (
        lambda v: v["groups"]["malignant, oval"].update(scores=[[0.1, 0.2]]),
        ("groups.malignant, oval.scores", "12 numbers"),
    ),
    "misspelt term": (
        lambda v: v["findings"][0]["findings"].update(shape="ovall"),
        ("findings.0", "ovall", "oval, round, irregular"),
    ),
    "misspelt margin class": (
        lambda v: v["findings"][1].update(margin_class="lobed"),
        ("findings.1.margin_class", "lobed", "circumscribed"),
    ),
    "rate above 1": (lambda v: v["border"].update(rate=1.5), ("border.rate", "1.5")),
    "unknown side": (lambda v: v["border"]["sides"].update(bottm=0.1), ("border.sides", "bottm")),
    "no lesions": (lambda v: v["lesions"].update(shares={}), ("lesions.shares",)),
    "contact above 1": (
        lambda v: v["border"].update(contact_fraction=[0.5, 1.2]),
        ("border.contact_fraction", "1.2"),
    ),
}


@pytest.mark.parametrize("name", INVALID)
def test_an_invalid_value_is_named(tmp_path, name):
    change, expected = INVALID[name]
    message = message_of(tmp_path, change)
    for part in expected:
        assert part in message
    # One line for one mistake, and not a copy of the file.
    assert message.count("\n- ") == 1
    assert len(message) < 700


def test_all_invalid_values_are_named_at_once(tmp_path):
    def change(values):
        for each, _ in INVALID.values():
            each(values)

    message = message_of(tmp_path, change)
    missing = [part for _, parts in INVALID.values() for part in parts if part not in message]
    assert missing == []


def test_a_part_that_is_missing_is_named_in_few_words(tmp_path):
    for part in ("groups", "features", "border"):
        message = message_of(tmp_path, lambda v, part=part: v.pop(part))
        assert part in message
        assert len(message) < 700
    assert "'all' is missing" in message_of(tmp_path, lambda v: v["groups"].pop("all"))


def test_a_changed_number_is_noticed_unless_the_check_sum_is_deleted(tmp_path):
    path = tmp_path / "prior.json"
    prior = small_prior()
    prior.write(path)
    values = json.loads(path.read_text())
    values["masks"] += 1
    path.write_text(json.dumps(values))
    with pytest.raises(InputError, match="if you edited it, delete 'content_sha256' from it"):
        Prior.load(path)
    del values["content_sha256"]
    path.write_text(json.dumps(values))
    assert Prior.load(path).masks == prior.masks + 1


def test_files_that_are_no_prior_are_refused(tmp_path):
    path = tmp_path / "prior.json"
    with pytest.raises(InputError, match="no such prior"):
        Prior.load(path)
    for content in (b'{"about": ', b"", b"\xff\xfe", b"[1, 2]", b"null", b'{"masks": NaN}'):
        path.write_bytes(content)
        with pytest.raises(InputError, match="not a valid prior"):
            Prior.load(path)
