import json

import numpy as np
import pytest
import torch
from test_loop import SETTINGS, Line, run, weights

from stdiff.runtime.stopping import Interrupted
from stdiff.training.validation import Validation, ValidationResult, best_of, better_generator

EMA = SETTINGS.model_copy(update={"ema_decay": 0.9})
# What is seen after 8, 16, … images: the third is nearest to real images among the three that
# follow their masks; the last is nearer, and does not.
SEEN = [(0.9, 0.1), (0.5, 0.8), (0.3, 0.79), (0.4, 0.8), (0.35, 0.82), (0.1, 0.5)]


def watched(state, settings=EMA, stop_after_s=None):
    """A training that is looked at every 8 images; the stage and the weights at each look."""
    stage, looks = Line(), {}

    def look():
        images = 8 * (len(json_lines(state)) + 1)
        looks[images] = weights(stage).clone()
        kid, dice = SEEN[images // 8 - 1]
        return ValidationResult({"kid": kid, "mask_dice": dice}, np.zeros((4, 4), np.uint8))

    run(
        stage,
        state,
        settings=settings,
        validation=Validation(8, look, better_generator),
        stop_after_s=stop_after_s,
    )
    return stage, looks


def json_lines(state):
    return [
        json.loads(x) for f in state.glob("*/validation.jsonl") for x in f.read_text().splitlines()
    ]


def test_the_weights_that_looked_best_are_used(tmp_path):
    stage, looks = watched(tmp_path)
    assert sorted(looks) == [8, 16, 24, 32, 40, 48]
    assert torch.equal(weights(stage), looks[24])
    assert [(line["kid"], line["mask_dice"]) for line in json_lines(tmp_path)] == SEEN
    assert best_of(json_lines(tmp_path), better_generator)["images"] == 24


def test_looked_at_are_the_averaged_weights_and_training_goes_on_with_the_others(tmp_path):
    _, looks = watched(tmp_path / "watched")
    plain = Line()
    run(plain, tmp_path / "plain", settings=EMA)
    # Without a watch the averaged weights of the end are used: those of the last look.
    assert torch.equal(weights(plain), looks[48])


def test_a_watched_training_that_is_stopped_ends_alike(tmp_path):
    whole, _ = watched(tmp_path / "whole")
    for _ in range(20):
        try:
            stopped, _ = watched(tmp_path / "stopped", stop_after_s=1e-9)
            break
        except Interrupted:
            continue
    assert torch.equal(weights(whole), weights(stopped))
    assert json_lines(tmp_path / "whole") == json_lines(tmp_path / "stopped")


def test_what_was_seen_after_the_last_checkpoint_is_seen_again(tmp_path):
    whole, _ = watched(tmp_path / "whole")
    rare = EMA.model_copy(update={"checkpoint_every_images": 20})
    with pytest.raises(RuntimeError, match="lost power"):
        stage, seen = Line(), []

        def look():
            if len(seen) == 4:
                raise RuntimeError("lost power")
            kid, dice = SEEN[len(seen)]
            seen.append(1)
            return ValidationResult({"kid": kid, "mask_dice": dice}, np.zeros((4, 4), np.uint8))

        run(
            stage, tmp_path / "cut", settings=rare, validation=Validation(8, look, better_generator)
        )
    assert len(json_lines(tmp_path / "cut")) == 4
    resumed, looks = watched(tmp_path / "cut", settings=rare)
    assert sorted(looks) == [24, 32, 40, 48]
    assert torch.equal(weights(resumed), weights(whole))


@pytest.mark.parametrize(
    ("new", "best", "better"),
    [
        ((0.3, 0.80), (0.4, 0.80), True),
        ((0.4, 0.80), (0.3, 0.80), False),
        ((0.1, 0.50), (0.3, 0.80), False),
        ((0.9, 0.80), (0.3, 0.50), True),
        ((0.2, 0.77), (0.3, 0.80), True),
    ],
)
def test_better_is_nearer_to_real_among_those_that_follow_masks(new, best, better):
    as_figures = [{"kid": kid, "mask_dice": dice} for kid, dice in (new, best)]
    assert better_generator(*as_figures) is better
