"""The sentences that say what a run found."""

import math

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from stdiff.config.run import parse_config
from stdiff.evaluation.statistics import training_noise
from stdiff.report.headlines import caution, compared_arm, headlines, worth_sentences

ARMS = {
    "real": {"kind": "real"},
    "mixed": {"kind": "mixed"},
    "quarter": {"kind": "mixed", "synthetic_share": 0.25},
}


@pytest.fixture(scope="module")
def config():
    """A run on two real collections."""
    with open("config/demo.yaml", encoding="utf-8") as file:
        values = yaml.safe_load(file)
    del values["phantom"], values["collections"]["bus_cot"]
    values["data_root"] = "data"
    values["segmentation"] |= {"arms": ARMS, "labels": ["40 cases"]}
    return parse_config(values)


def result(gain=0.045, low=0.025, high=0.066, *, chosen="mixed", arms=("mixed",), sd=0.004, **more):
    """A parsed gain.json of one segmenter and 40 cases, every arm of the same gain."""
    key = {"segmenter": "unet", "labels": "40 cases", "collection": "pooled", "seeds": 3}
    record = {"gain_mean": gain, "gain_low": low, "gain_high": high, "holm_p": 1e-7, "cases": 184}
    return {
        "baseline_arm": "real",
        "by_arm": [
            {**key, "arm": arm, "dice_mean": 0.586 + gain * (arm != "real"), "dice_seed_sd": sd}
            for arm in ("real", *arms)
        ],
        "gains": [{**key, "arm": arm, **record, **more} for arm in arms],
        "chosen": [{**key, "arm": chosen}] if chosen else [],
        "learning_curve": [
            {**key, "arm": arm, "training_real": 40, "training_synthetic": 5000 * (arm != "real")}
            for arm in ("real", *arms)
        ],
    }


LEAD = "With 40 labelled cases of BUSI and BUS-BRA, "


def test_a_gain_is_one_sentence_with_its_numbers(config):
    assert headlines(result(), config) == [
        LEAD + "adding 5,000 synthetic images raised Dice from .586 to .631 (+4.5 points, "
        "95 % 2.5 to 6.6)."
    ]


@pytest.mark.parametrize(
    ("found", "says"),
    [
        (
            result(-0.06, -0.083, -0.035),
            "adding 5,000 synthetic images lowered Dice from .586 to .526 (−6.0 points, "
            "95 % −8.3 to −3.5).",
        ),
        (
            result(0.004, -0.011, 0.019),
            "adding 5,000 synthetic images made no difference to Dice that 184 test cases can "
            "show: .586 without, .590 with them (+0.4 points, 95 % −1.1 to 1.9).",
        ),
        (
            result(0.004, None, None),
            "adding 5,000 synthetic images changed Dice from .586 to .590 (+0.4 points; the test "
            "cases are of one group, so there is no interval).",
        ),
        (
            result(chosen="real"),
            "real images alone were best on validation lesions, so that no synthetic images would "
            "be added. On test lesions, adding 5,000 synthetic images raised Dice from .586 to "
            ".631 (+4.5 points, 95 % 2.5 to 6.6).",
        ),
        (result(arms=()) | {"chosen": []}, "real images alone reach a Dice of .586."),
    ],
)
def test_what_was_found_is_said_as_it_is(config, found, says):
    assert headlines(found, config) == [LEAD + says]


def test_the_chosen_arm_is_named_where_there_are_several(config):
    found = result(arms=("mixed", "quarter"), chosen="quarter")
    (text,) = headlines(found, config)
    assert text.endswith("6.6). Arm quarter was chosen on validation lesions.")
    assert compared_arm(found, "unet", "40 cases") == "quarter"
    (text,) = headlines(result(arms=("mixed", "quarter"), chosen=None), config)
    assert "(Arm mixed.) Adding" in text and text.endswith("(Arm quarter.)")


def test_a_gain_within_the_chance_of_trainings_says_so(config):
    found = result(sd=0.03)
    noise = 100 * training_noise([(0.03, 3)] * 2)
    (text,) = headlines(found, config)
    assert f"trainings alone may differ as much (by chance: ±{noise:.1f} points)" in text
    assert caution(found, found["gains"][0]) == f"±{noise:.1f} points"
    assert caution(result(), result()["gains"][0]) == ""
    one = result(sd=None)
    assert caution(one, one["gains"][0]) == "unknown: one training an arm"


def test_a_gain_that_does_not_hold_after_correction_says_so(config):
    (text,) = headlines(result(holm_p=0.08), config)
    assert text.endswith(
        "After correction for the number of comparisons it is not shown (p = 0.08)."
    )


@given(st.floats(1e-4, 0.2), st.integers(2, 9))
def test_more_trainings_leave_less_to_chance(deviation, number):
    few, many = (training_noise([(deviation, n)] * 2) for n in (number, number + 1))
    assert 0 < many < few
    # The half width of a t interval: 4.303 for 2 degrees of freedom (tables).
    assert training_noise([(deviation, 2)] * 2) == pytest.approx(4.3027 * deviation, rel=1e-4)


def test_one_training_an_arm_leaves_everything_to_chance():
    assert training_noise([(math.nan, 1)] * 2) == math.inf


@pytest.mark.parametrize(
    ("saved", "low", "high", "beyond", "says"),
    [
        (-162.0, None, None, "less", "a lower Dice than arm real with 59, the fewest measured: it "
         "costs at least 162 labelled cases."),
        (0.0, None, None, "less", "the fewest measured: it saves none."),
        (100.0, None, None, "more", "a higher Dice than arm real with 321, the most measured: it "
         "saves more than 100 labelled cases."),
        (61.0, 20.0, 101.0, "", "the Dice of arm real with 282, read off the curve: it saves about "
         "61 labelled cases (95 % 20 to 101)."),
        (-19.0, -40.0, 3.0, "", "it costs about 19 labelled cases (95 % −3 to 40)."),
        (61.0, None, 101.0, "", "its 95 % interval reaches beyond the curve"),
    ],
)  # fmt: skip
def test_the_worth_of_an_arm_is_a_sentence(saved, low, high, beyond, says):
    record = {"segmenter": "unet", "arm": "mixed", "labels": "100 %", "beyond": beyond}
    record["training_real"] = 59 if beyond == "less" and not saved else 221
    record |= {"worth_mean": saved, "worth_low": low, "worth_high": high}
    (text,) = worth_sentences({"baseline_arm": "real", "worth": [record]})
    assert says in text and "-" not in text
