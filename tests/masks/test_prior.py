import json

import numpy as np
import pytest
from drawn_masks import (
    SEEDS,
    SIZE,
    bank_table,
    edited,
    ellipse,
    examples,
    rows_of,
    small_prior,
    small_table,
)
from hypothesis import given
from hypothesis import strategies as st

from stdiff.birads.lexicon import Findings
from stdiff.birads.shape import measure
from stdiff.masks.bank import MaskBank
from stdiff.masks.curvature import CurvatureSource
from stdiff.masks.fitting import fit_prior
from stdiff.masks.prior import FEATURES, Prior
from stdiff.masks.roughness import NAMES as ROUGHNESS
from stdiff.runtime.files import InputError

AREA = FEATURES.index("area_fraction")
LEAF = "benign, oval, parallel, circumscribed"


def fit(table, **options):
    return fit_prior(MaskBank(table), "drawn for a test", **options)


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


def test_the_order_of_the_table_does_not_matter():
    table = small_table()
    assert fit(table.sample(frac=1, random_state=3)) == small_prior()
    assert fit(table[::-1]) == small_prior()


def test_what_is_fitted_is_what_the_masks_are_like():
    masks = [ellipse(4 + k, 3 + k / 2, 20 + 2 * k, 40 - k) for k in range(8)]
    masks[7] |= ellipse(3, 3, 8, 8)
    masks[0] = ellipse(6, 6, 2, 30)  # cut by the left side
    prior = fit(bank_table(masks))
    areas = sorted(measure(mask).area_fraction for mask in masks)
    knots = prior.features["area_fraction"]
    assert (knots[0], knots[-1]) == pytest.approx((areas[0], areas[-1]), rel=1e-3)
    assert np.median(areas) == pytest.approx(knots[len(knots) // 2], rel=1e-3)
    assert prior.features["centre_x"][-1] == pytest.approx(34 / SIZE, abs=0.003)
    # All but the first are wider than tall, by (4 + k) / (3 + k / 2).
    assert prior.features["elongation"][-1] == pytest.approx(np.log(11 / 6.5), abs=0.05)
    assert (prior.masks, prior.lesions.shares) == (8, {1: 0.875, 2: 0.125})
    assert prior.border.rate == 0.125
    assert prior.border.sides == {"top": 0, "right": 0, "bottom": 0, "left": 1}
    assert prior.border.contact_fraction[0] == pytest.approx(12 / 12, abs=0.15)
    assert sum(entry.masks for entry in prior.findings) == 8
    assert {entry.findings.pathology for entry in prior.findings} == {"benign", "malignant"}


def test_the_findings_of_a_prior_are_those_of_its_masks():
    table = small_table()
    for entry in small_prior().findings:
        same = [
            measured
            for row in table.to_dict("records")
            if (measured := Findings.from_row(row)) == entry.findings
        ]
        # Outlines of one caption may differ in class: unclear or circumscribed, both indistinct.
        classes = [e for e in small_prior().findings if e.findings == entry.findings]
        assert len(same) == sum(e.masks for e in classes)


def test_terms_that_belie_the_mask_are_set_right():
    said = Findings(shape="irregular", orientation="not parallel", margin=("spiculated",))
    unsaid = Findings(pathology="benign")
    prior = fit(rows_of([ellipse(16, 10)] * 3, [said, said, unsaid]))
    shown = Findings(shape="oval", orientation="parallel", margin=("circumscribed",))
    assert [entry.findings for entry in prior.findings] == [shown, unsaid]
    assert [entry.masks for entry in prior.findings] == [2, 1]


def test_a_group_of_one_mask_keeps_close_to_the_group_above():
    masks = [ellipse(8 + k, 5 + k / 3, 28 + k, 30) for k in range(12)]
    masks.append(ellipse(5, 16, 40, 40))  # the only one not parallel, and the tallest by far
    findings = [
        Findings("benign", None, measure(mask).shape, measure(mask).orientation) for mask in masks
    ]
    prior = fit(rows_of(masks, findings))
    above, alone = prior.groups["benign, oval"], prior.groups["benign, oval, not parallel"]
    assert (above.masks, alone.masks) == (13, 1)
    for name in FEATURES:
        # One mask against five borrowed: a sixth of the way, of at most 2 standard deviations.
        assert abs(alone.mean[name] - above.mean[name]) < 0.45
        assert alone.scale[name] == pytest.approx(above.scale[name], rel=0.25)
    assert alone.mean["elongation"] < above.mean["elongation"] - 0.1
    assert np.array(alone.correlation) == pytest.approx(np.array(above.correlation), abs=0.25)


@pytest.mark.parametrize("count", [1, 2])
def test_two_masks_can_be_fitted_and_one_is_refused(count):
    speck, line = ellipse(1.5, 1.5, 9.5, 9.5), ellipse(30, 0.6, y0=32.5)
    table = bank_table([speck, line, *[ellipse(12, 8), ellipse(9, 11)][:count]])
    if count == 2:
        assert fit(table).masks == 2
    else:
        with pytest.raises(InputError, match="1 of 3 masks have a lesion of at least 20 pixels"):
            fit(table)


def test_masks_that_are_all_alike_can_be_fitted_and_drawn():
    prior = fit(bank_table([ellipse(14, 9)] * 3, ["benign"]))
    sampled = CurvatureSource(prior, SIZE, SIZE).sample(np.random.default_rng(0))
    area_px = np.count_nonzero(ellipse(14, 9))
    assert np.count_nonzero(sampled.mask) == pytest.approx(area_px, rel=0.1)


def test_an_outline_with_a_spike_is_not_rough_without_bounds():
    # |c_k| is at most the sum of all turns over a full one: here some 12 spikes, each of half a
    # turn at its tip and as much back at its feet.
    for name in ROUGHNESS:
        assert small_prior().features[name][-1] < 15, name


def test_a_hairline_of_a_lesion_can_be_in_the_bank():
    hairline = np.pad(np.eye(40, dtype=np.uint8) * 255, 12)
    prior = fit(bank_table([hairline, ellipse(12, 8), ellipse(9, 11)]))
    assert prior.masks >= 2


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
NONSENSE = {
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
        ("groups.all.mean: size is no feature",),
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


@pytest.mark.parametrize("name", NONSENSE)
def test_nonsense_in_a_prior_is_named(tmp_path, name):
    change, expected = NONSENSE[name]
    message = message_of(tmp_path, change)
    for part in expected:
        assert part in message
    # One line for one mistake, and not a copy of the file.
    assert message.count("\n- ") == 1
    assert len(message) < 700


def test_all_nonsense_is_named_at_once(tmp_path):
    def change(values):
        for each, _ in NONSENSE.values():
            each(values)

    message = message_of(tmp_path, change)
    missing = [part for _, parts in NONSENSE.values() for part in parts if part not in message]
    assert missing == []


def test_a_part_that_is_missing_is_named_in_few_words(tmp_path):
    for part in ("groups", "features", "border"):
        message = message_of(tmp_path, lambda v, part=part: v.pop(part))
        assert part in message
        assert len(message) < 700
    assert "'all' is missing" in message_of(tmp_path, lambda v: v["groups"].pop("all"))


def test_files_that_are_no_prior_are_refused(tmp_path):
    path = tmp_path / "prior.json"
    with pytest.raises(InputError, match="no such prior"):
        Prior.load(path)
    for content in (b'{"about": ', b"", b"\xff\xfe", b"[1, 2]", b"null", b'{"masks": NaN}'):
        path.write_bytes(content)
        with pytest.raises(InputError, match="not a prior that masks can be drawn from"):
            Prior.load(path)
