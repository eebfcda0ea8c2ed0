import json

import numpy as np
import pytest
import torch
from test_loop import SETTINGS, Line, run, weights

from stdiff.runtime.errors import UnusableFile
from stdiff.runtime.stopping import Interrupted
from stdiff.training.validation import (
    BestWeights,
    Validation,
    ValidationResult,
    best_of,
    better_generator,
)

EMA = SETTINGS.model_copy(update={"ema_decay": 0.9})
# KID and mask Dice after 8, 16, … images: the third has the lowest KID among those that follow
# their masks; the last has a lower one, but does not.
RESULTS = [(0.9, 0.1), (0.5, 0.8), (0.3, 0.79), (0.4, 0.8), (0.35, 0.82), (0.1, 0.5)]


def validated(state, settings=EMA, stop_after_s=None):
    """A training validated every 8 images; its stage and the weights at each validation."""
    stage, weights_at = Line(), {}

    def validate():
        images = 8 * (len(json_lines(state)) + 1)
        weights_at[images] = weights(stage).clone()
        kid, dice = RESULTS[images // 8 - 1]
        return ValidationResult({"kid": kid, "mask_dice": dice}, np.zeros((4, 4), np.uint8))

    run(
        stage,
        state,
        settings=settings,
        validation=Validation(8, validate, better_generator),
        stop_after_s=stop_after_s,
    )
    return stage, weights_at


def json_lines(state):
    return [
        json.loads(x) for f in state.glob("*/validation.jsonl") for x in f.read_text().splitlines()
    ]


def test_the_best_weights_are_used(tmp_path):
    stage, weights_at = validated(tmp_path)
    assert sorted(weights_at) == [8, 16, 24, 32, 40, 48]
    assert torch.equal(weights(stage), weights_at[24])
    assert [(line["kid"], line["mask_dice"]) for line in json_lines(tmp_path)] == RESULTS
    assert best_of(json_lines(tmp_path), better_generator)["images"] == 24


def test_the_ema_weights_are_validated_and_training_continues_with_the_others(tmp_path):
    _, weights_at = validated(tmp_path / "validated")
    plain = Line()
    run(plain, tmp_path / "plain", settings=EMA)
    # Without validation the final EMA weights are used: those of the last validation.
    assert torch.equal(weights(plain), weights_at[48])


def test_a_validated_training_that_is_stopped_ends_alike(tmp_path):
    whole, _ = validated(tmp_path / "whole")
    for _ in range(20):
        try:
            stopped, _ = validated(tmp_path / "stopped", stop_after_s=1e-9)
            break
        except Interrupted:
            continue
    assert torch.equal(weights(whole), weights(stopped))
    assert json_lines(tmp_path / "whole") == json_lines(tmp_path / "stopped")


def test_validations_after_the_last_checkpoint_are_repeated(tmp_path):
    whole, _ = validated(tmp_path / "whole")
    rare = EMA.model_copy(update={"checkpoint_every_images": 20})
    with pytest.raises(RuntimeError, match="lost power"):
        stage, seen = Line(), []

        def validate():
            if len(seen) == 4:
                raise RuntimeError("lost power")
            kid, dice = RESULTS[len(seen)]
            seen.append(1)
            return ValidationResult({"kid": kid, "mask_dice": dice}, np.zeros((4, 4), np.uint8))

        run(
            stage,
            tmp_path / "cut",
            settings=rare,
            validation=Validation(8, validate, better_generator),
        )
    assert len(json_lines(tmp_path / "cut")) == 4
    resumed, weights_at = validated(tmp_path / "cut", settings=rare)
    assert sorted(weights_at) == [24, 32, 40, 48]
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


def damaged(path, how):
    content = bytearray(path.read_bytes())
    if how == "deleted":
        path.unlink()
    elif how == "cut":
        path.write_bytes(content[: len(content) // 2])
    else:
        at = len(content) - 3 if how == "flipped at its end" else len(content) // 3
        content[at] ^= 1
        path.write_bytes(content)


def stopped_at(state, images):
    """A training that was stopped when it had seen so many images."""
    for _ in range(images // 4):
        with pytest.raises(Interrupted):
            validated(state, stop_after_s=1e-9)


@pytest.mark.parametrize("how", ["deleted", "cut", "flipped", "flipped at its end"])
@pytest.mark.parametrize("name", ["best.safetensors", "validation.jsonl", "log.jsonl"])
@pytest.mark.parametrize("images", [12, 28, 44])
def test_a_damaged_state_ends_alike(tmp_path, how, name, images):
    whole, _ = validated(tmp_path / "whole")
    stopped_at(tmp_path / "damaged", images)
    (file,) = (tmp_path / "damaged").glob(f"*/{name}")
    if not file.stat().st_size:
        return
    damaged(file, how)
    resumed, _ = validated(tmp_path / "damaged")
    assert torch.equal(weights(resumed), weights(whole))
    assert json_lines(tmp_path / "damaged") == json_lines(tmp_path / "whole")


def test_best_weights_damaged_at_the_end_are_named_and_found_again(tmp_path, monkeypatch):
    whole, _ = validated(tmp_path)
    (best,) = tmp_path.glob("*/best.safetensors")
    load = BestWeights.load_into

    def damaged_before(self, into):
        damaged(self.file, "flipped at its end")
        load(self, into)

    monkeypatch.setattr(BestWeights, "load_into", damaged_before)
    with pytest.raises(UnusableFile, match=str(best)):
        validated(tmp_path)
    monkeypatch.undo()
    again, _ = validated(tmp_path)
    assert torch.equal(weights(again), weights(whole))
