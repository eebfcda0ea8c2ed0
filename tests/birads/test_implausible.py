"""Masks that cannot be a lesion's raise doubts; those that can do not."""

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stdiff.birads.implausible import frame_doubts, mask_doubts


def ellipse(height=120, width=160, centre=(70, 60), axes=(30, 18), angle=20, thickness=-1):
    mask = np.zeros((height, width), np.uint8)
    return cv2.ellipse(mask, centre, axes, angle, 0, 360, 1, thickness).astype(bool)


def arc():
    mask = np.zeros((120, 160), np.uint8)
    return cv2.ellipse(mask, (70, 60), (30, 18), 20, 20, 340, 1, 2).astype(bool)


def specks(count, side=2):
    mask = np.zeros((120, 160), bool)
    for k in range(count):
        mask[5 : 5 + side, 8 * k + 3 : 8 * k + 3 + side] = True
    return mask


def dashed():
    y, x = np.mgrid[:120, :160]
    return ellipse(thickness=1) & (np.arctan2(y - 60, x - 70) % 0.6 < 0.3)


def frame_around():
    mask = np.ones((120, 160), bool)
    mask[10:-10, 10:-10] = False
    return mask


IMPOSSIBLE = {
    "all white": (np.ones((120, 160), bool), ["covers 100 %", "four corners"]),
    "inverted": (~ellipse(), ["covers 91 %", "four corners"]),
    "inverted, of a large lesion": (~ellipse(axes=(75, 55)), ["four corners"]),
    "large": (~frame_around() | ellipse(axes=(78, 58)), ["covers 8"]),
    "a frame around the image": (frame_around(), ["four corners", "outline"]),
    "an outline": (ellipse(thickness=1), ["outline"]),
    "a thick outline": (ellipse(thickness=5), ["outline"]),
    "an open outline": (arc(), ["outline"]),
    "a dashed outline": (dashed(), ["area of 20 px"]),
    "a line": (ellipse(axes=(70, 0)), ["outline or a line"]),
    "specks": (specks(6), ["area of 20 px or more, its largest is 4 px"]),
    "one pixel": (specks(1, side=1), ["area of 20 px"]),
    "a speck in a large image": (
        np.pad(specks(1, side=9), ((0, 900), (0, 1200))),
        ["area of 277 px or more, its largest is 81 px"],
    ),
    "a lesion among specks": (ellipse() | specks(6), ["6 specks of fewer than 20 px"]),
}


@pytest.mark.parametrize("what", IMPOSSIBLE)
def test_what_cannot_be_a_lesion_is_doubted(what):
    mask_HW, expected = IMPOSSIBLE[what]
    found = mask_doubts(mask_HW)
    for part in expected:
        assert any(part in doubt for doubt in found), found


POSSIBLE = {
    "empty": np.zeros((120, 160), bool),
    "an ellipse": ellipse(),
    "a flat one": ellipse(axes=(40, 5)),
    "two": ellipse(centre=(40, 40)) | ellipse(centre=(120, 80)),
    "with two specks, as some of BUSI": ellipse() | specks(2),
    "at the border": ellipse(centre=(0, 60)),
    "over three corners": ellipse(centre=(0, 0), axes=(155, 115), angle=0),
    "with a hole": ellipse() & ~ellipse(axes=(8, 6)),
    "of 25 px": specks(1, side=5),
}


@pytest.mark.parametrize("what", POSSIBLE)
def test_what_can_be_a_lesion_is_not(what):
    assert mask_doubts(POSSIBLE[what]) == []


@given(
    st.integers(6, 60), st.integers(6, 40), st.integers(0, 179), st.integers(30, 130),
    st.integers(20, 100),
)  # fmt: skip
def test_no_ellipse_inside_the_image_is_doubted(a, b, angle, x, y):
    assert mask_doubts(ellipse(centre=(x, y), axes=(a, b), angle=angle)) == []


@given(st.integers(10, 60), st.integers(10, 40), st.integers(0, 179))
def test_every_outline_and_every_inverted_mask_is(a, b, angle):
    shape = {"axes": (a, b), "angle": angle, "height": 200, "width": 200, "centre": (100, 100)}
    assert mask_doubts(ellipse(thickness=1, **shape))
    assert frame_doubts(~ellipse(**shape))


@pytest.mark.parametrize("shape", [(1, 1), (1, 500), (500, 1), (2, 2)])
def test_masks_of_any_size_are_judged(shape):
    assert mask_doubts(np.ones(shape, bool))
    assert mask_doubts(np.zeros(shape, bool)) == []
