import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stdiff.overlays.sector import sector_box
from stdiff.simulation.frames import bus_cot_frame, screen_offset_px, screenshot


def tissue(height, width, seed=0):
    """Speckle of mean grey 70, correlated over a few pixels."""
    noise = np.random.default_rng(seed).normal(size=(height, width))
    smooth = cv2.GaussianBlur(noise, (0, 0), 2, sigmaY=1.2)
    return np.clip(70 + 25 * smooth / smooth.std(), 12, 255).astype(np.uint8)


@settings(max_examples=25, deadline=None)
@given(*[st.integers(0, 60)] * 4, st.integers(0, 5))
def test_bars_are_cut_and_no_tissue_is(left, top, right, bottom, seed):
    inner = tissue(120, 160, seed)
    frame = np.pad(inner, ((top, bottom), (left, right)))
    assert sector_box(frame) == (left, top, left + 160, top + 120)


@pytest.mark.parametrize("number", range(4))
def test_a_screen_gives_back_its_frame(number):
    picture = bus_cot_frame(5, number, 320).picture
    screen = np.asarray(screenshot(picture))
    x, y = screen_offset_px(picture)
    left, top, right, bottom = sector_box(screen)
    assert x - 2 <= left <= x and y - 2 <= top <= y
    assert right == x + picture.width
    # Echoes that fade to black are not cut off.
    assert y + picture.height <= bottom <= screen.shape[0]


def convex(height=300, width=400):
    """A fan of tissue on black, and where it is."""
    ys, xs = np.mgrid[:height, :width]
    radius, angle = np.hypot(xs - 200, ys + 80), np.arctan2(xs - 200, ys + 80)
    fan = (radius > 110) & (radius < 330) & (abs(angle) < 0.5)
    return np.where(fan, tissue(height, width), 0).astype(np.uint8), fan


def test_a_fan_keeps_every_echo():
    frame, fan = convex()
    left, top, right, bottom = sector_box(frame)
    assert right - left < 0.9 * frame.shape[1] and top > 10
    outside = fan.copy()
    outside[top:bottom, left:right] = False
    # A line is cut only if less than 2 % of it is lit: the very tips of an arc.
    assert outside.sum() <= 0.002 * fan.sum()


def test_a_frame_that_fades_with_depth_stays_whole():
    depth = np.linspace(1, 0, 200)[:, None] ** 2
    frame = (tissue(200, 150) * depth).astype(np.uint8)
    assert sector_box(frame) == (0, 0, 150, 200)


@pytest.mark.parametrize("grey", [0, 90])
def test_a_blank_frame_stays_whole(grey):
    assert sector_box(np.full((60, 80), grey, np.uint8)) == (0, 0, 80, 60)


def test_the_box_holds_the_lesion():
    frame = np.pad(tissue(100, 100), 30)
    mask = np.zeros(frame.shape, bool)
    mask[20:60, 5:90] = True
    assert sector_box(frame) == (30, 30, 130, 130)
    assert sector_box(frame, mask) == (5, 20, 130, 130)
    assert sector_box(frame, mask.astype(np.uint8) * 255) == (5, 20, 130, 130)
