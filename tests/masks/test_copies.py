import cv2
import numpy as np
import pytest
from drawn_masks import ellipse, squares

from stdiff.masks.copies import near_copies
from stdiff.runtime.files import InputError

ARROW = np.array([[-40, -10], [5, -30], [0, -12], [45, -8], [40, 14], [2, 10], [-8, 38]])
KITE = np.array([[-40, 0], [0, -45], [30, 5], [0, 30]])


def polygon(corners, scale=1.0, x0=128, y0=128, mirrored=False):
    mask = np.zeros((256, 256), np.uint8)
    moved = corners * [-scale if mirrored else scale, scale] + [x0, y0]
    cv2.fillPoly(mask, [np.round(moved).astype(np.int32)], 255)
    return mask


def test_a_copy_is_found_wherever_it_lies_and_no_other_shape():
    training = np.stack([polygon(ARROW), polygon(KITE[:3])])
    generated = np.stack(
        [
            polygon(ARROW, 1.4, 150, 110, mirrored=True),
            polygon(ARROW, 0.8, 90, 140),
            polygon(KITE, 1.4),
            polygon(ARROW) | polygon(KITE, 0.1, 230, 20),  # only the largest lesion counts
            np.rot90(polygon(ARROW)),
        ]
    )
    found = [near_copies(mask[None], training) for mask in generated]
    assert found == [1, 1, 0, 1, 0]
    assert near_copies(generated, training) == pytest.approx(3 / 5)
    assert near_copies(generated > 0, training > 0) == pytest.approx(3 / 5)
    assert near_copies(generated, training, iou=0.3) == 1
    # Fully alike is not more than fully alike.
    assert near_copies(training, training, iou=1.0) == 0


def test_a_copy_of_the_last_training_mask_is_found():
    others = np.stack([ellipse(6 + k, 14) for k in range(6)])
    training = np.concatenate([others, ellipse(5, 20)[None]])
    generated = np.concatenate([squares("a", 4), ellipse(5, 20, 30, 33)[None]])
    assert near_copies(generated, training) == pytest.approx(1 / 5)


def test_masks_that_cannot_be_compared_are_refused():
    masks = np.stack([ellipse(12, 8), ellipse(12, 8) * 0])
    with pytest.raises(InputError, match="mask 1 .* no lesion"):
        near_copies(masks[:1], masks)
    with pytest.raises(InputError, match="0 generated and 2 training"):
        near_copies(masks[:0], masks)
