import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from stdiff.files import InputError
from stdiff.segmentation.metrics import case_metrics

SHAPE = (1, 32, 24)


def square(top, left, side):
    mask = np.zeros(SHAPE, np.uint8)
    mask[0, top : top + side, left : left + side] = 255
    return mask


def test_known_drawings():
    masks = np.concatenate([square(4, 4, 10), square(4, 4, 10), square(4, 4, 10)])
    predicted = np.concatenate([square(4, 4, 10), square(4, 9, 10), square(20, 14, 10)])
    metrics = case_metrics(predicted, masks)
    assert metrics["dice"].tolist() == [1.0, 0.5, 0.0]
    assert metrics["iou"].tolist() == [1.0, pytest.approx(1 / 3), 0.0]
    assert metrics["hd95_px"][0] == 0
    assert metrics["hd95_px"][1] == pytest.approx(5)
    assert metrics["lesion_pixels"].tolist() == [100] * 3
    assert metrics["predicted_pixels"].tolist() == [100] * 3


def test_both_empty_is_left_out():
    metrics = case_metrics(square(0, 0, 0), square(0, 0, 0))
    assert metrics[["dice", "iou", "hd95_px"]].isna().all(axis=None)


@pytest.mark.parametrize(
    ("predicted", "lesion"),
    [(square(3, 3, 5), square(0, 0, 0)), (square(0, 0, 0), square(3, 3, 5))],
)
def test_one_empty_costs_all(predicted, lesion):
    metrics = case_metrics(predicted, lesion)
    assert metrics["dice"][0] == 0
    assert metrics["iou"][0] == 0
    assert metrics["hd95_px"][0] == pytest.approx(math.hypot(32, 24))


def test_missing_a_lesion_never_improves_hd95():
    lesion = np.concatenate([square(4, 4, 10), square(4, 4, 10)])
    bad = np.concatenate([square(4, 4, 10), square(27, 19, 4)])
    missed = np.concatenate([square(4, 4, 10), square(0, 0, 0)])
    assert (
        case_metrics(missed, lesion)["hd95_px"].mean() > case_metrics(bad, lesion)["hd95_px"].mean()
    )


def test_shapes_must_agree():
    with pytest.raises(InputError, match="true masks"):
        case_metrics(np.zeros((2, 8, 8), np.uint8), np.zeros((1, 8, 8), np.uint8))


masks = arrays(np.uint8, (2, 6, 7), elements=st.sampled_from([0, 255]))


@given(masks, masks)
def test_symmetric_bounded_and_consistent(a, b):
    forward, backward = case_metrics(a, b), case_metrics(b, a)
    for name in ("dice", "iou", "hd95_px"):
        np.testing.assert_allclose(forward[name], backward[name])
    known = forward.dropna()
    assert known["dice"].between(0, 1).all()
    assert known["hd95_px"].between(0, math.hypot(6, 7) + 1e-6).all()
    np.testing.assert_allclose(known["iou"], known["dice"] / (2 - known["dice"]))
