import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from stdiff.config.downstream import ArmConfig
from stdiff.config.run import parse_config
from stdiff.downstream.arms import Arm, Phase, parse_arm, real_arm
from stdiff.downstream.augmentation import acoustic_shadows, augment, deform, regrade
from stdiff.downstream.images import ArmImages, LabelledImages
from stdiff.downstream.mgcc import MGCC
from stdiff.downstream.segmenter_stage import SegmenterStage, ramp_up
from stdiff.runtime.files import InputError
from stdiff.table.label_budget import ALL_LABELS, LabelBudget

STAGE = {"images": 64, "batch": 8}
CONFIG = parse_config(
    {
        "run": "t",
        "collections": {"busi": {"path": "x"}},
        "training": {"autoencoder": STAGE, "pretrain": STAGE, "finetune": STAGE},
        "corpus": {"count": 200},
        "segmentation": {
            "labels": [10, 100],
            "arms": {"mixed": {"kind": "mixed"}, "plain": {"kind": "real"}},
            "training": STAGE,
        },
    }
)


def test_parse():
    arm = parse_arm("mixed-10", CONFIG)
    assert arm == Arm("mixed", LabelBudget.parse(10), ArmConfig(kind="mixed"))
    assert str(arm) == "mixed-10"
    assert real_arm(CONFIG) == "plain"


@pytest.mark.parametrize("text", ["mixed", "mixed-20", "other-10", "mixed-10-1", "-10", ""])
def test_unknown_arms_are_refused(text):
    with pytest.raises(InputError, match="mixed-10, mixed-100, plain-10, plain-100"):
        parse_arm(text, CONFIG)


@pytest.mark.parametrize(
    ("arm", "shares"),
    [
        ({"kind": "real"}, [(1, 0)]),
        ({"kind": "mixed"}, [(1, 0.5)]),
        ({"kind": "mixed", "ratio": 4}, [(1, 0.8)]),
        ({"kind": "mixed", "ratio": 4, "synthetic_share": 0.5}, [(1, 0.5)]),
        ({"kind": "pretrained"}, [(0.75, 1), (0.25, 0)]),
        ({"kind": "synthetic"}, [(1, 1)]),
        ({"kind": "unlabelled"}, [(1, 0)]),
    ],
)
def test_phases(arm, shares):
    phases = Arm("a", ALL_LABELS, ArmConfig(**arm)).phases
    assert [(p.fraction, p.synthetic_share) for p in phases] == shares
    assert sum(p.fraction for p in phases) == 1


def flat(value, count, weights=None):
    return LabelledImages(
        np.full((count, 4, 4), value, np.uint8), np.zeros((count, 4, 4), np.uint8), weights
    )


def stage_of(share, real, synthetic=None, unlabelled=None, network=None):
    images = ArmImages(real, synthetic, unlabelled)
    return SegmenterStage(network or torch.nn.Conv2d(1, 1, 1), Phase("p", 1, share), images, 100)


@given(
    share=st.sampled_from([0.25, 0.5, 0.75, 0.9]),
    batch=st.integers(2, 20),
    seed=st.integers(0, 100),
)
def test_batches_hold_the_share_of_the_arm(share, batch, seed):
    stage = stage_of(share, flat(1, 30), flat(2, 7))
    rng = torch.Generator().manual_seed(seed)
    cases = stage.batch(np.arange(batch), rng)
    assert cases.images_NHW.shape == cases.masks_NHW.shape == (batch, 4, 4)
    assert (cases.weights == 1).all()
    real = int((cases.images_NHW[:, 0, 0] == 1).sum())
    assert real == stage.phase.real_in_batch(batch)
    assert abs(real - (1 - share) * batch) <= 0.5 or real == 1


def numbered(count):
    return LabelledImages(np.arange(count, dtype=np.uint8)[:, None, None], np.zeros((count, 1, 1)))


def test_real_arms_see_exactly_the_cases_drawn():
    cases = stage_of(0.0, numbered(30)).batch(np.array([3, 20, 7]), torch.Generator())
    assert cases.images_NHW.ravel().tolist() == [3, 20, 7]


def test_an_epoch_of_synthetic_images_only_is_one_of_them():
    stage = stage_of(1.0, numbered(3), numbered(30))
    assert stage.count == 30
    cases = stage.batch(np.array([3, 20, 7]), torch.Generator())
    assert cases.images_NHW.ravel().tolist() == [3, 20, 7]


def test_weights_stand_with_the_synthetic_images_they_belong_to():
    synthetic = numbered(4)
    synthetic = LabelledImages(
        synthetic.images_NHW, synthetic.masks_NHW, np.arange(4, dtype=np.float32)
    )
    real = LabelledImages(np.full((8, 1, 1), 99, np.uint8), np.zeros((8, 1, 1)))
    stage = stage_of(0.5, real, synthetic)
    cases = stage.batch(np.arange(8), torch.Generator().manual_seed(1))
    images, weights = cases.images_NHW, cases.weights
    assert (weights[:4] == 1).all() and (images[:4] == 99).all()
    assert weights[4:].tolist() == images[4:].ravel().tolist()


class Twins(torch.nn.Module):
    """A main and two auxiliary outputs that differ by constants."""

    def __init__(self, consistency_weight=7.0):
        super().__init__()
        self.consistency_weight = consistency_weight
        self.scale = torch.nn.Parameter(torch.ones(()))

    def all_logits(self, grey_N1HW):
        return tuple(self.scale * (0 * grey_N1HW + shift) for shift in (0.0, 1.0, -1.0))

    def forward(self, grey_N1HW):
        return self.all_logits(grey_N1HW)[0]


@pytest.mark.parametrize("largest", [7.0, 14.0])
def test_unlabelled_images_ask_the_outputs_to_agree(largest):
    unlabelled = np.full((5, 4, 4), 7, np.uint8)
    stage = stage_of(0.0, flat(1, 8), unlabelled=unlabelled, network=Twins(largest))
    batch = stage.sample_batch(np.arange(8), torch.Generator().manual_seed(0))
    assert batch["unlabelled"].shape == (8, 1, 4, 4)
    loss, figures = stage.training_step(batch)
    difference = torch.tensor([0.0, 1.0, -1.0]).sigmoid() - 0.5
    expected = (difference[1] ** 2 + difference[2] ** 2) / 2
    assert figures["consistency"].item() == pytest.approx(expected.item(), rel=1e-5)
    without = {k: v for k, v in batch.items() if k != "unlabelled"}
    supervised, _ = stage.training_step(without)
    weight = largest * ramp_up(8 / 75)
    assert (loss - supervised).item() == pytest.approx(weight * expected.item(), rel=1e-5)


class Pair(torch.nn.Module):
    """A main and an auxiliary output, each with a constant of its own."""

    consistency_weight = 7.0

    def __init__(self):
        super().__init__()
        self.main, self.auxiliary = (torch.nn.Parameter(torch.tensor(x)) for x in (0.5, -0.5))

    def all_logits(self, grey_N1HW):
        return tuple(0 * grey_N1HW + shift for shift in (self.main, self.auxiliary))


def test_main_and_auxiliary_outputs_move_towards_each_other():
    unlabelled = np.full((5, 4, 4), 7, np.uint8)
    stage = stage_of(0.0, flat(1, 8), unlabelled=unlabelled, network=Pair())
    batch = stage.sample_batch(np.arange(8), torch.Generator().manual_seed(0))
    # Nothing is asked of the labelled images.
    loss, _ = stage.training_step(batch | {"weights": torch.zeros(8)})
    loss.backward()
    network = stage.modules["network"]
    assert network.main.grad > 0 > network.auxiliary.grad
    assert network.main.grad.item() == pytest.approx(-network.auxiliary.grad.item())


def test_unlabelled_images_do_not_change_what_is_asked_of_labelled_ones():
    network = MGCC([4, 8, 8, 8, 16], consistency_weight=0).train()
    drawn = np.random.default_rng(0).integers(0, 256, (8, 32, 32), np.uint8)
    real = LabelledImages(drawn, 255 * (drawn > 128).astype(np.uint8))
    stage = stage_of(0.0, real, unlabelled=drawn // 4, network=network)
    batch = stage.sample_batch(np.arange(8), torch.Generator().manual_seed(0))
    with_them, figures = stage.training_step(batch)
    assert figures["consistency"] > 0
    del batch["unlabelled"]
    assert with_them.item() == stage.training_step(batch)[0].item()


def test_a_weight_of_nought_takes_an_image_out_of_the_loss():
    stage = stage_of(0.0, flat(1, 8), network=Twins())
    batch = stage.sample_batch(np.arange(8), torch.Generator().manual_seed(0))
    loss, _ = stage.training_step(batch)
    doubled, _ = stage.training_step(batch | {"weights": torch.tensor([2.0] * 4 + [0.0] * 4)})
    assert loss.item() == pytest.approx(doubled.item(), rel=1e-6)  # all masks are alike here
    none, _ = stage.training_step(batch | {"weights": torch.zeros(8)})
    assert none.item() == 0


def test_the_weight_of_the_agreement_rises_to_the_end_of_the_ramp():
    values = [ramp_up(t) for t in (0, 0.25, 0.5, 0.75, 1, 2)]
    assert values == sorted(values)
    assert values[0] == pytest.approx(np.exp(-5))
    assert values[-1] == values[-2] == 1


def test_drop_out_is_drawn_from_the_batch_not_from_global_state():
    network = torch.nn.Sequential(torch.nn.Conv2d(1, 8, 1), torch.nn.Dropout(0.5))
    network.append(torch.nn.Conv2d(8, 1, 1))
    losses = []
    for noise in (1, 2):
        stage = stage_of(0.0, flat(1, 8), network=network.train())
        torch.manual_seed(noise)
        before = torch.get_rng_state()
        batch = stage.sample_batch(np.arange(8), torch.Generator().manual_seed(0))
        losses.append(stage.training_step(batch)[0].item())
        assert torch.equal(before, torch.get_rng_state())
    assert losses[0] == losses[1]


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


def test_some_images_get_an_acoustic_shadow_that_reaches_to_the_bottom():
    left = acoustic_shadows(400, (48, 64), torch.Generator().manual_seed(0))
    assert left.shape == (400, 1, 48, 64)
    assert 0.29 < left.min() < 0.45 and left.max() == 1
    shadowed = (left < 0.98).flatten(1).any(dim=1)
    assert 0.17 < shadowed.float().mean() < 0.3
    # Nothing gets brighter further down, and none is as wide as half the image.
    assert (left.diff(dim=2) <= 0).all()
    bottom = left[shadowed, 0, -1]
    assert ((bottom < 0.98).float().mean(dim=1) < 0.5).all()
    assert torch.equal(left, acoustic_shadows(400, (48, 64), torch.Generator().manual_seed(0)))


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
