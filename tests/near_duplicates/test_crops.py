import numpy as np
import pandas as pd
import pytest
from copies import lesion_crop, phantom
from hypothesis import given, settings
from hypothesis import strategies as st

from stdiff.near_duplicates import crops
from stdiff.near_duplicates.crops import crop_pairs
from stdiff.near_duplicates.fingerprint import fingerprint, fingerprint_array

FRAMES = 30


class Collection:
    """Frames and a crop of each, as crop_pairs takes them."""

    def __init__(self, *, changed: bool):
        made = [phantom(2, index, 320) for index in range(FRAMES)]
        cut = [
            lesion_crop(image, mask, np.random.default_rng([3, index]), changed=changed)
            for index, (image, mask) in enumerate(made)
        ]
        self.boxes_px = np.array([box for _, box in cut])
        self.crops = _prints([crop for crop, _ in cut])
        self.crop_px = np.array([crop.shape for crop, _ in cut])
        self.frames = _prints([image for image, _ in made])
        self.frame_px = np.array([image.shape for image, _ in made])

    def pairs(self, crop=slice(None), frame=slice(None)):
        return crop_pairs(
            self.crops[crop], self.crop_px[crop], self.frames[frame], self.frame_px[frame]
        )


def _prints(images) -> np.ndarray:
    return fingerprint_array([fingerprint(image) for image in images])


@pytest.fixture(scope="module")
def native() -> Collection:
    return Collection(changed=False)


@pytest.fixture(scope="module")
def changed() -> Collection:
    return Collection(changed=True)


# A few below the recall of `python bench/duplicates.py recall` on 200 frames of another seed.
@pytest.mark.parametrize(("kind", "floor"), [("native", 0.85), ("changed", 0.8)])
def test_crops_are_found_in_their_frames_and_nowhere_else(kind, floor, request):
    collection = request.getfixturevalue(kind)
    pairs = collection.pairs()
    assert (pairs["crop"] == pairs["frame"]).all()
    assert len(pairs) >= floor * FRAMES


def test_the_box_says_where_the_crop_lies(native):
    pairs = native.pairs()
    found = pairs[["top_px", "bottom_px", "left_px", "right_px"]].to_numpy()
    # A pixel of a fingerprint is 3 to 4 px of the frame.
    assert np.abs(found - native.boxes_px[pairs["frame"]]).max() < 6


def test_a_crop_of_a_frame_that_is_not_there_is_found_nowhere(native):
    assert native.pairs(crop=slice(0, 15), frame=slice(15, None)).empty


def test_processes_do_not_matter(native):
    alone = native.pairs()
    together = crop_pairs(native.crops, native.crop_px, native.frames, native.frame_px, processes=2)
    pd.testing.assert_frame_equal(alone, together)


def test_one_grey_level_matches_nothing(native):
    flat = np.full((2, 96, 96), 90, np.uint8)
    sides_px = np.full((2, 2), 100)
    assert crop_pairs(flat, sides_px, native.frames[:3], native.frame_px[:3]).empty
    assert crop_pairs(native.crops[:3], native.crop_px[:3], flat, sides_px * 4).empty


def test_nothing_to_search(native):
    columns = ["crop", "frame", "correlation", "top_px", "bottom_px", "left_px", "right_px"]
    for nothing in (native.pairs(crop=slice(0)), native.pairs(frame=slice(0))):
        assert list(nothing) == columns and nothing.empty


def test_pairs_do_not_depend_on_the_block(native, monkeypatch):
    whole = native.pairs(slice(8), slice(8))
    monkeypatch.setattr(crops, "_BLOCK", 3)
    in_blocks = native.pairs(slice(8), slice(8))
    assert len(whole) and whole[["crop", "frame"]].equals(in_blocks[["crop", "frame"]])
    np.testing.assert_allclose(whole["correlation"], in_blocks["correlation"], atol=1e-4)


@settings(max_examples=4, deadline=None)
@given(crop_order=st.permutations(range(6)), frame_order=st.permutations(range(6)))
def test_order_does_not_matter(native, crop_order, frame_order):
    expected = native.pairs(slice(6), slice(6))
    pairs = native.pairs(crop_order, frame_order)
    assert pairs.equals(pairs.sort_values(["crop", "frame"], ignore_index=True))
    found = {(crop_order[c], frame_order[f]) for c, f in pairs[["crop", "frame"]].to_numpy()}
    assert found == set(map(tuple, expected[["crop", "frame"]].to_numpy())) and found


def test_a_crop_does_not_depend_on_the_others(native):
    together = native.pairs(slice(6), slice(6))
    alone = [native.pairs([index], slice(6)) for index in range(6)]
    frames = [set(part["frame"]) for part in alone]
    assert frames == [set(together["frame"][together["crop"] == index]) for index in range(6)]
