import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from stdiff.downstream.metrics import case_metrics
from stdiff.runtime.files import InputError

SHAPE = (1, 32, 24)
OVERLAPS = ["dice", "iou", "sensitivity", "precision"]
DISTANCES = ["hd95_px", "assd_px"]


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
    metrics = case_metrics(square(0, 0, 0), square(0, 0, 0), np.array([[0.1, 0.1]]))
    names = [*OVERLAPS, *DISTANCES, "hd95_mm", "assd_mm"]
    assert metrics[names].isna().all(axis=None)
    assert metrics[["lesions", "lesions_found", "false_lesions"]].to_numpy().tolist() == [[0, 0, 0]]


@pytest.mark.parametrize(
    ("predicted", "lesion"),
    [(square(3, 3, 5), square(0, 0, 0)), (square(0, 0, 0), square(3, 3, 5))],
)
def test_one_empty_costs_all(predicted, lesion):
    metrics = case_metrics(predicted, lesion)
    assert (metrics[OVERLAPS] == 0).all(axis=None)
    assert metrics[DISTANCES].to_numpy().tolist() == [[pytest.approx(math.hypot(32, 24))] * 2]
    wrong = int(predicted.any())
    found = metrics[["lesions", "lesions_found", "false_lesions"]].to_numpy().tolist()
    assert found == [[1 - wrong, 0, wrong]]


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
    for name in ("dice", "iou", "hd95_px", "assd_px"):
        np.testing.assert_allclose(forward[name], backward[name], rtol=1e-6)
    np.testing.assert_allclose(forward["sensitivity"], backward["precision"])
    turned = case_metrics(a[:, ::-1, ::-1].copy(), b[:, ::-1, ::-1].copy())
    # MONAI sums distances in float32, in the order of the pixels.
    np.testing.assert_allclose(turned.to_numpy(float), forward.to_numpy(float), rtol=1e-6)
    known = forward.drop(columns=["hd95_mm", "assd_mm"]).dropna()
    assert (known["lesions_found"] <= known["lesions"]).all()
    assert known["dice"].between(0, 1).all()
    assert known["hd95_px"].between(0, math.hypot(6, 7) + 1e-6).all()
    np.testing.assert_allclose(known["iou"], known["dice"] / (2 - known["dice"]))


def edge(mask_HW):
    """Pixels of a mask with a neighbour outside it, the image's border counting as outside."""
    padded = np.pad(mask_HW, 1)
    inside = padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    return np.argwhere(mask_HW & ~inside)


@given(masks, masks)
def test_mean_surface_distance_by_brute_force(a, b):
    metrics = case_metrics(a, b)
    for number in range(2):
        if not (a[number].any() and b[number].any()):
            continue
        one, other = edge(a[number] > 0), edge(b[number] > 0)
        distances = np.linalg.norm(one[:, None] - other[None], axis=2)
        both = np.concatenate([distances.min(axis=1), distances.min(axis=0)])
        assert metrics["assd_px"][number] == pytest.approx(both.mean(), abs=1e-4)


def test_sensitivity_and_precision():
    metrics = case_metrics(square(4, 4, 10), square(4, 4, 5))
    assert metrics[["sensitivity", "precision"]].to_numpy().tolist() == [[1.0, 0.25]]


def test_lesions_are_found_one_by_one():
    lesions = np.maximum(square(2, 2, 6), square(20, 12, 8))
    predicted = np.maximum(square(3, 3, 6), square(12, 2, 3))
    metrics = case_metrics(predicted, lesions)
    found = metrics[["lesions", "lesions_found", "false_lesions"]].to_numpy().tolist()
    assert found == [[2, 1, 1]]
    # A corner that is touched is not a lesion that is found.
    metrics = case_metrics(square(7, 7, 6), square(2, 2, 6))
    assert metrics[["lesions_found", "false_lesions"]].to_numpy().tolist() == [[0, 1]]


def test_millimetres_where_the_spacing_is_known():
    masks = np.concatenate([square(4, 4, 10)] * 2)
    predicted = np.concatenate([square(4, 9, 10)] * 2)
    metrics = case_metrics(predicted, masks, np.array([[0.1, 0.1], [np.nan, 0.1]]))
    for name in ("hd95", "assd"):
        assert metrics[f"{name}_mm"][0] == pytest.approx(0.1 * metrics[f"{name}_px"][0])
        assert np.isnan(metrics[f"{name}_mm"][1])
    assert case_metrics(predicted, masks)["hd95_mm"].isna().all()


def test_millimetres_of_pixels_that_are_no_squares():
    mask, right, below = square(4, 4, 10), square(4, 9, 10), square(9, 4, 10)
    spacing_mm = np.array([[0.2, 0.1]] * 3)
    predicted = np.concatenate([right, below, square(0, 0, 0)])
    metrics = case_metrics(predicted, np.concatenate([mask] * 3), spacing_mm)
    height, width = mask.shape[1:]
    diagonal_mm = np.hypot(0.2 * height, 0.1 * width)
    assert metrics["hd95_mm"].tolist() == pytest.approx([0.5, 1, diagonal_mm], rel=1e-6)
    assert metrics["assd_mm"][1] == pytest.approx(2 * metrics["assd_mm"][0], rel=0.2)
