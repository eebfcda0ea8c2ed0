"""Grey levels that no ultrasound frame has are found; those of real frames are let be."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage

from stdiff.config.generator import GateConfig
from stdiff.diffusion.decoupling import soft_gate
from stdiff.filtering.sanity import contrast_grey, saturated_fraction, seam

SIZE = 64
GATE = GateConfig()


def scene(index):
    """Speckle with a dark, soft-edged lesion, and its mask."""
    rng = np.random.default_rng(index)
    y, x = np.mgrid[:SIZE, :SIZE]
    centre, radius = rng.uniform(20, 44, 2), rng.uniform(6, 12)
    disc = (y - centre[0]) ** 2 + (x - centre[1]) ** 2 < radius**2
    speckle = ndimage.gaussian_filter(rng.normal(0, 60, (SIZE, SIZE)), 1)
    image = 120 + speckle - 70 * ndimage.gaussian_filter(disc.astype(float), 1)
    return image.clip(0, 255).astype(np.uint8), np.where(disc, 255, 0).astype(np.uint8)


def pasted(image, region, step):
    return (image.astype(int) + step * region).clip(0, 255).astype(np.uint8)


def largest_of_whole_images():
    return max(seam(*scene(index), GATE) for index in range(100))


@pytest.mark.parametrize("level", [0.0, 0.5])
@pytest.mark.parametrize("step", [-50, 50])
def test_a_patch_pasted_along_the_gates_edge_is_a_seam(level, step):
    limit = largest_of_whole_images()
    for index in range(100, 120):
        image, mask = scene(index)
        region = soft_gate(mask, GATE) > level
        assert seam(pasted(image, region, step), mask, GATE) > limit
        assert seam(image, mask, GATE) < 1.3 * limit


def test_what_jumps_elsewhere_is_no_seam_of_the_gate():
    image, mask = scene(3)
    image_elsewhere = pasted(image, mask > 0, -60)  # the lesion's own edge
    assert seam(image_elsewhere, mask, GATE) < largest_of_whole_images()


@given(st.integers(0, 30), st.floats(0.5, 1.0))
def test_a_seam_does_not_depend_on_contrast(index, contrast):
    image, mask = scene(index)
    fainter = (image * contrast).astype(np.uint8)
    assert seam(fainter, mask, GATE) == pytest.approx(seam(image, mask, GATE), rel=0.25)


@given(st.integers(0, 30))
def test_a_mirrored_image_has_the_same_seam(index):
    image, mask = scene(index)
    assert seam(image[:, ::-1], mask[:, ::-1], GATE) == pytest.approx(seam(image, mask, GATE))


def test_there_is_no_seam_without_a_gate_or_without_room():
    image, mask = scene(0)
    assert seam(image, mask, GateConfig(everywhere=True)) is None
    assert seam(image, np.zeros_like(mask), GATE) is None
    assert seam(image, np.full_like(mask, 255), GATE) is None
    assert seam(np.full_like(image, 90), mask, GATE) == 0


def test_blank_and_white():
    image, _ = scene(1)
    assert contrast_grey(np.full((8, 8), 200, np.uint8)) == 0
    assert contrast_grey(image) == pytest.approx(image.astype(float).std())
    half = image.copy()
    half[: SIZE // 2] = 255
    assert saturated_fraction(half) >= 0.5
    assert saturated_fraction(np.full((8, 8), 249, np.uint8)) == 0
    assert saturated_fraction(np.zeros((8, 8), np.uint8)) == 0
