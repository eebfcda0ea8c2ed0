import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from stdiff.diffusion.condition import boundary, condition_image, signed_distance

KINDS = ("mask", "distance", "boundary")
lesions = arrays(np.bool_, (16, 16), elements=st.booleans())


def disc(y, x, radius, size=64):
    ys, xs = np.mgrid[:size, :size]
    return (ys - y) ** 2 + (xs - x) ** 2 < radius**2


@settings(max_examples=50, deadline=None)
@given(lesions)
def test_the_condition_of_a_mirror_image_is_the_mirrored_condition(lesion):
    mask = lesion[None].astype(np.uint8) * 255
    flipped = condition_image(mask[:, :, ::-1].copy(), KINDS)
    assert torch.equal(flipped, condition_image(mask, KINDS).flip(-1))


@settings(max_examples=50, deadline=None)
@given(lesions)
def test_the_sign_of_the_distance_is_the_mask(lesion):
    distance = signed_distance(lesion)
    assert distance.min() >= 0 and distance.max() <= 1
    if lesion.any():
        assert np.array_equal(distance > 0.5, lesion)


@settings(max_examples=50, deadline=None)
@given(lesions)
def test_the_boundary_is_where_the_lesion_has_a_neighbour_that_is_none(lesion):
    padded = np.pad(lesion, 1, mode="edge")
    around = [padded[1 + dy : 17 + dy, 1 + dx : 17 + dx] for dy in (-1, 0, 1) for dx in (-1, 0, 1)]
    expected = lesion & ~np.logical_and.reduce(around)
    assert np.array_equal(boundary(lesion) > 0, expected)


def test_the_distance_grows_evenly_from_the_edge():
    half = np.zeros((64, 64), bool)
    half[:, 32:] = True
    row = signed_distance(half)[10]
    assert np.allclose(np.diff(row[20:44]), 1 / 32)
    assert row[31] == pytest.approx(0.5 - 0.5 / 32) and row[32] == pytest.approx(0.5 + 0.5 / 32)


def test_each_of_several_lesions_has_its_edge():
    both = disc(16, 16, 8) | disc(48, 44, 6)
    assert np.array_equal(
        boundary(both) > 0, (boundary(disc(16, 16, 8)) + boundary(disc(48, 44, 6))) > 0
    )
    distance = signed_distance(both)
    assert distance[16, 16] > 0.6 and distance[48, 44] > 0.6 and distance[32, 30] < 0.4


def test_the_border_of_the_image_is_no_edge():
    cut = disc(0, 32, 20)
    assert boundary(cut)[0, 32] == 0 and boundary(cut)[19, 32] == 1
    assert signed_distance(cut)[0, 32] > signed_distance(cut)[10, 32]
    everywhere = np.ones((32, 32), bool)
    assert not boundary(everywhere).any() and (signed_distance(everywhere) == 1).all()


def test_no_lesion_says_nothing():
    assert not condition_image(np.zeros((2, 32, 32), np.uint8), KINDS).any()


def test_channels_are_repeated_until_there_are_three():
    mask = disc(20, 20, 9)[None].astype(np.uint8)
    alone, pair = condition_image(mask, ["mask"]), condition_image(mask, ["mask", "distance"])
    assert torch.equal(alone[0, 0], alone[0, 1]) and torch.equal(alone[0, 0], alone[0, 2])
    assert torch.equal(pair[0, 0], pair[0, 2]) and not torch.equal(pair[0, 0], pair[0, 1])


def test_a_condition_survives_being_a_picture():
    condition = condition_image(disc(20, 20, 9)[None], KINDS)
    picture = (condition * 255).numpy().round().astype(np.uint8)
    assert torch.equal(torch.from_numpy(picture).float() / 255, condition)


def test_a_soft_mask_is_soft_where_the_caption_says_indistinct():
    masks = np.stack([disc(20, 20, 9)] * 3)
    captions = ["benign: indistinct margin", "benign: circumscribed margin", ""]
    soft, sharp, unknown = condition_image(masks, ["soft mask"], captions)[:, 0]
    mask = torch.from_numpy((masks[0] > 0).astype(np.float32))
    assert torch.equal(sharp, mask) and torch.equal(unknown, mask)
    assert ((soft > 0.05) & (soft < 0.95)).sum() > 20
    assert float(soft.sum()) == pytest.approx(float(mask.sum()), rel=0.01)
    assert torch.equal(condition_image(masks, ["soft mask"])[0, 0], mask)
