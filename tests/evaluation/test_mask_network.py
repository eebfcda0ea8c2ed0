import cv2
import numpy as np
import pytest
import torch

from stdiff.evaluation import mask_network
from stdiff.evaluation.mask_network import network_auc
from stdiff.runtime.files import InputError
from stdiff.runtime.randomness import generator

SIZE = 64


def masks(stream, count, draw):
    """Shapes of half axes (a, b) about (x, y), all drawn at random."""
    rng = generator(0, stream)
    stack = np.zeros((count, SIZE, SIZE), np.uint8)
    for mask in stack:
        draw(mask, *np.round(rng.uniform((8, 8, 24, 24), (18, 18, 40, 40))).astype(int).tolist())
    return stack


def ellipse(mask, a, b, x, y):
    cv2.ellipse(mask, (x, y), (a, b), 0, 0, 360, 255, -1)


def square(mask, a, b, x, y):
    cv2.rectangle(mask, (x - a, y - b), (x + a, y + b), 255, -1)


def test_one_distribution_cannot_be_told_apart_and_another_shape_can():
    real = masks("b", 80, ellipse)
    same = network_auc(masks("a", 80, ellipse), real, range(80), 0, size_px=16)
    assert same == pytest.approx(0.5, abs=0.15)
    assert network_auc(masks("a", 80, square), real, range(80), 0, size_px=16) > 0.95


def test_masks_of_one_patient_do_not_leak_from_one_fold_to_another():
    generated = masks("a", 96, ellipse)
    real = np.repeat(masks("b", 16, ellipse), 6, axis=0)
    patients = np.repeat(np.arange(16), 6)
    settings = {"size_px": 16, "epochs": 12}
    assert network_auc(generated, real, patients, 0, **settings) < 0.65
    # So much would leak if each mask were taken for a patient of its own.
    assert network_auc(generated, real, range(96), 0, **settings) > 0.8


def test_whatever_is_above_zero_is_lesion():
    generated, real = masks("a", 12, square), masks("b", 12, ellipse)
    settings = {"size_px": 16, "epochs": 2}
    first = network_auc(generated, real, range(12), 0, **settings)
    assert network_auc(generated > 0, real // 255, range(12), 0, **settings) == first


def test_the_seed_alone_decides_and_global_randomness_is_left_alone():
    generated, real = masks("a", 12, ellipse), masks("b", 12, ellipse)

    def found(seed):
        return network_auc(generated, real, range(12), seed, size_px=16, epochs=3)

    before = torch.get_rng_state()
    first = found(1)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(9)
    np.random.seed(9)
    assert found(1) == first
    assert len({found(seed) for seed in range(2, 6)} | {first}) > 1


def test_masks_are_reduced_by_averaging_areas():
    mask = np.zeros((SIZE, SIZE), np.uint8)
    mask[:2, :3] = 255
    reduced = mask_network._reduced(mask[None], 16)
    assert reduced.shape == (1, 1, 16, 16)
    assert reduced[0, 0, 0, 0] == pytest.approx(6 / 16)
    assert reduced.sum() == pytest.approx(6 / 16)


def test_what_cannot_be_compared_is_refused():
    few, enough = masks("a", 9, ellipse), masks("b", 10, ellipse)
    with pytest.raises(InputError, match="9 generated and 10 real masks"):
        network_auc(few, enough, range(10), 0)
    with pytest.raises(InputError, match="one height and width"):
        network_auc(enough[:, :32], enough, range(10), 0)
    with pytest.raises(InputError, match="at least 16 and 1"):
        network_auc(enough, enough, range(10), 0, size_px=8)
    with pytest.raises(InputError, match="at least 16 and 1"):
        network_auc(enough, enough, range(10), 0, epochs=0)
