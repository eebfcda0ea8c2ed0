import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stdiff.datasets.geometry import FITS, fit_frame, to_native
from stdiff.runtime.files import InputError


@st.composite
def framed_boxes(draw):
    """(height, width, box) with a box of at least 12 px a side somewhere in the frame."""
    height, width = draw(st.integers(20, 300)), draw(st.integers(20, 300))
    left, top = draw(st.integers(0, width - 12)), draw(st.integers(0, height - 12))
    right, bottom = draw(st.integers(left + 12, width)), draw(st.integers(top + 12, height))
    return height, width, (left, top, right, bottom)


def assert_transform_leads_back(placed, height, width, u, v):
    """A point at parts ``u``, ``v`` of the placed box returns to its native position."""
    left, top, right, bottom = placed.box_px
    # A rectangle around a native point, large enough to survive the resampling.
    x, y = left + u * (right - left), top + v * (bottom - top)
    reach = max(3.0, 3 * max(1 / s for s in placed.scales))
    ys, xs = np.mgrid[:height, :width] + 0.5
    mask = (abs(xs - x) <= reach) & (abs(ys - y) <= reach)
    stored_y, stored_x = np.nonzero(placed.mask(mask))
    cell = placed.transform()
    back_x = (stored_x.mean() + 0.5 - cell["offset_x_px"]) / cell["scale_x"]
    back_y = (stored_y.mean() + 0.5 - cell["offset_y_px"]) / cell["scale_y"]
    inside_y, inside_x = np.nonzero(mask[top:bottom, left:right])
    assert abs(back_x - (left + inside_x.mean() + 0.5)) <= 1 + 1 / cell["scale_x"]
    assert abs(back_y - (top + inside_y.mean() + 0.5)) <= 1 + 1 / cell["scale_y"]


@given(
    st.sampled_from(FITS),
    st.integers(20, 300),
    st.integers(20, 300),
    st.integers(32, 96),
    st.floats(0.3, 0.7),
    st.floats(0.3, 0.7),
)
def test_transform_leads_back_to_native_pixels(fit, height, width, size_px, u, v):
    assert_transform_leads_back(fit_frame(height, width, size_px, fit), height, width, u, v)


@given(st.integers(1, 400), st.integers(1, 400), st.integers(8, 64), st.sampled_from(FITS))
def test_every_frame_fits_the_square(height, width, size_px, fit):
    placed = fit_frame(height, width, size_px, fit)
    assert placed.image(np.zeros((height, width), np.uint8)).shape == (size_px, size_px)
    assert placed.transform()["native_height_px"] == height


@given(st.sampled_from(FITS), framed_boxes(), st.integers(32, 96), st.floats(0.3, 0.7))
def test_transform_leads_back_to_native_pixels_from_a_box(fit, framed, size_px, share):
    height, width, box = framed
    placed = fit_frame(height, width, size_px, fit, box)
    assert_transform_leads_back(placed, height, width, share, share)


@given(st.sampled_from(FITS), framed_boxes(), st.integers(16, 64))
def test_a_box_is_placed_as_its_own_frame_would_be(fit, framed, size_px):
    height, width, box = framed
    left, top, right, bottom = box
    placed = fit_frame(height, width, size_px, fit, box)
    alone = fit_frame(bottom - top, right - left, size_px, fit)
    assert (placed.placed_px, placed.corner_px) == (alone.placed_px, alone.corner_px)
    shift = np.array([left, top, left, top])
    assert (np.array(placed.box_px) == np.array(alone.box_px) + shift).all()
    assert placed.native_px == (height, width)


@given(st.sampled_from(FITS), framed_boxes())
def test_without_a_box_the_frame_is_whole(fit, framed):
    height, width, _ = framed
    whole = (0, 0, width, height)
    assert fit_frame(height, width, 64, fit) == fit_frame(height, width, 64, fit, whole)


@pytest.mark.parametrize("box", [(5, 0, 5, 20), (0, 9, 30, 8), (-1, 0, 30, 20), (0, 0, 31, 20)])
def test_a_box_outside_the_frame_is_refused(box):
    with pytest.raises(InputError, match=r"box_px: .*; expected left < right <= 30"):
        fit_frame(20, 30, 64, "stretch", box)


def test_an_unknown_fit_is_refused():
    with pytest.raises(InputError, match="fit: 'squeeze' is not known; expected one of stretch"):
        fit_frame(20, 30, 64, "squeeze")


@given(st.sampled_from(FITS), framed_boxes(), st.integers(32, 96))
def test_values_return_to_where_they_came_from(fit, framed, size_px):
    """A ramp over the square has, at every native pixel that it shows, that pixel's place in it."""
    height, width, box = framed
    placed = fit_frame(height, width, size_px, fit, box)
    cell = placed.transform()
    left, top, right, bottom = placed.box_px
    ys, xs = (np.mgrid[:size_px, :size_px] + 0.5).astype(np.float32)
    for ramp, scale, offset, axis in (
        (ys, cell["scale_y"], cell["offset_y_px"], 0),
        (xs, cell["scale_x"], cell["offset_x_px"], 1),
    ):
        native = to_native(ramp, cell, beyond=-9)
        assert native.shape == (height, width)
        shown = np.zeros((height, width), bool)
        shown[top:bottom, left:right] = True
        places = scale * (np.indices((height, width))[axis] + 0.5) + offset
        # Beyond the outermost centres the ramp is level.
        assert np.abs(native - places.clip(0.5, size_px - 0.5))[shown].max() < 0.1
        # Padding apart, nothing else is shown.
        if fit != "pad":
            assert (native[~shown] == -9).all()
