import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from stdiff.config import parse_config
from stdiff.files import InputError
from stdiff.segmentation.arms import Arm, parse_arm, real_arm
from stdiff.segmentation.augmentation import augment, deform, regrade
from stdiff.segmentation.train import LabelledImages, SegmenterStage

STAGE = {"images": 64, "batch": 8}
CONFIG = parse_config(
    {
        "run": "t",
        "collections": {"busi": {"path": "x"}},
        "training": {"autoencoder": STAGE, "pretrain": STAGE, "finetune": STAGE},
        "corpus": {"count": 200},
        "segmentation": {
            "label_percents": [10, 100],
            "arms": {"mixed": {"synthetic_share": 0.5}, "plain": {"synthetic_share": 0}},
            "training": STAGE,
        },
    }
)


def test_parse():
    arm = parse_arm("mixed-10", CONFIG)
    assert arm == Arm("mixed", 10, 0.5)
    assert str(arm) == "mixed-10"
    assert real_arm(CONFIG) == "plain"


@pytest.mark.parametrize("text", ["mixed", "mixed-20", "other-10", "mixed-10-1", "-10", ""])
def test_unknown_arms_are_refused(text):
    with pytest.raises(InputError, match="mixed-10, mixed-100, plain-10, plain-100"):
        parse_arm(text, CONFIG)


def flat(value, count):
    return LabelledImages(
        np.full((count, 4, 4), value, np.uint8), np.zeros((count, 4, 4), np.uint8)
    )


@given(
    share=st.sampled_from([0.25, 0.5, 0.75, 0.9]),
    batch=st.integers(2, 20),
    seed=st.integers(0, 100),
)
def test_batches_hold_the_share_of_the_arm(share, batch, seed):
    arm = Arm("mixed", 100, share)
    stage = SegmenterStage(torch.nn.Identity(), arm, flat(1, 30), flat(2, 7))
    images, masks = stage.batch(np.arange(batch), torch.Generator().manual_seed(seed))
    assert images.shape == masks.shape == (batch, 4, 4)
    real = int((images[:, 0, 0] == 1).sum())
    assert real == arm.real_in_batch(batch)
    assert abs(real - (1 - share) * batch) <= 0.5 or real == 1


def test_real_arms_see_exactly_the_cases_drawn():
    real = LabelledImages(np.arange(30, dtype=np.uint8)[:, None, None], np.zeros((30, 1, 1)))
    stage = SegmenterStage(torch.nn.Identity(), Arm("real", 100, 0.0), real)
    images, _ = stage.batch(np.array([3, 20, 7]), torch.Generator())
    assert images.ravel().tolist() == [3, 20, 7]


def blobs(seed, count=6, size=32):
    rng = torch.Generator().manual_seed(seed)
    coarse = torch.rand((count, 1, 5, 5), generator=rng)
    smooth = torch.nn.functional.interpolate(coarse, (size, size), mode="bicubic")
    return (smooth > 0.5).float()


@settings(max_examples=25)
@given(seed=st.integers(0, 10_000))
def test_image_and_mask_move_together(seed):
    masks = blobs(seed)
    images, moved = deform(masks * 255, masks, torch.Generator().manual_seed(seed))
    assert set(moved.unique().tolist()) <= {0.0, 1.0}
    # Where the interpolated image is pure, the nearest mask pixel must say the same.
    assert (moved[images > 254.9] == 1).all()
    assert (moved[images < 0.1] == 0).all()
    assert ((images > 0.1) & (images < 254.9)).float().mean() < 0.5


def test_no_borders_appear():
    images, masks = deform(
        torch.full((64, 1, 32, 32), 200.0), torch.ones(64, 1, 32, 32), torch.Generator()
    )
    torch.testing.assert_close(images, torch.full_like(images, 200.0))
    assert (masks == 1).all()


def test_grey_levels_stay_in_range_and_differ_between_images():
    images = torch.linspace(0, 255, 32).expand(4, 1, 32, 32).contiguous()
    changed = regrade(images, torch.Generator().manual_seed(0))
    assert changed.min() >= 0
    assert changed.max() <= 255
    assert (changed - images).abs().mean() > 1
    assert not torch.equal(changed[0], changed[1])


def test_augmentation_is_drawn_from_its_generator_alone():
    masks = blobs(1)
    first = augment(masks * 99, masks, torch.Generator().manual_seed(5))
    torch.manual_seed(77)
    again = augment(masks * 99, masks, torch.Generator().manual_seed(5))
    other = augment(masks * 99, masks, torch.Generator().manual_seed(6))
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not torch.equal(first[0], other[0])


def test_lesions_are_not_thrown_out():
    masks = torch.zeros(200, 1, 32, 32)
    masks[..., 12:20, 12:20] = 1
    _, moved = deform(masks, masks, torch.Generator().manual_seed(0))
    assert (moved.sum(dim=(1, 2, 3)) > 0).all()
    assert 0.5 < moved.sum() / masks.sum() < 2
