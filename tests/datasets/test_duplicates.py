import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy.ndimage import gaussian_filter

from stdiff.datasets import duplicates
from stdiff.datasets.duplicates import duplicate_groups, duplicate_pairs, joined, thumbnail
from stdiff.datasets.harmonize import read_raw
from stdiff.datasets.pixels import read_grey

_DATA = Path(
    os.environ.get("STDIFF_DATA_ROOT", Path(__file__).parents[2].parent / "shared" / "data")
)
real_files = pytest.mark.skipif(
    not (_DATA / "BUSBRA").is_dir(), reason="real collections are not here"
)


def scene(key: int, size_px: int = 128) -> np.ndarray:
    """Smooth tissue under the depth gradient that all ultrasound images share."""
    rough = np.random.default_rng([3, key]).normal(size=(size_px, size_px))
    tissue = gaussian_filter(rough, size_px / 40)
    depth = np.linspace(150, 30, size_px)[:, None]
    return np.clip(depth + 20 * tissue / tissue.std(), 0, 255).astype(np.uint8)


def with_callipers(image: np.ndarray) -> np.ndarray:
    marked = image.copy()
    for y, x in ((40, 30), (40, 90), (20, 60), (70, 60)):
        marked[y - 4 : y + 5, x] = marked[y, x - 4 : x + 5] = 255
    return marked


def brighter(image: np.ndarray) -> np.ndarray:
    return np.clip(image * 1.2 + 10, 0, 255).astype(np.uint8)


def shifted(image: np.ndarray) -> np.ndarray:
    """The frame of a crop that lost a few pixels at one side, at its full size again."""
    cropped = Image.fromarray(image[:, 6:])
    return np.asarray(cropped.resize(image.shape[::-1], Image.Resampling.BICUBIC))


@pytest.mark.parametrize("change", [np.copy, with_callipers, brighter, shifted])
def test_a_changed_frame_is_found_among_others(change):
    images = np.stack([scene(0), scene(1), change(scene(0)), scene(2)])
    assert duplicate_pairs(images).tolist() == [[0, 2]]


def test_the_depth_gradient_alone_makes_no_duplicates():
    images = np.stack([scene(key) for key in range(40)])
    assert len(np.unique(duplicate_groups(images))) == 40


def test_one_grey_level_matches_nothing():
    images = np.stack([np.full((64, 64), grey, np.uint8) for grey in (0, 0, 90)])
    assert duplicate_pairs(images).size == 0
    assert duplicate_groups(images[:0]).size == 0


def test_groups_do_not_depend_on_the_block(monkeypatch):
    images = np.stack([scene(key // 2) for key in range(12)])
    whole = duplicate_groups(images)
    monkeypatch.setattr(duplicates, "_BLOCK", 5)
    assert (duplicate_groups(images) == whole).all() and whole.max() == 5


@settings(max_examples=10, deadline=None)
@given(st.permutations(range(9)))
def test_order_does_not_matter(order):
    images = np.stack([scene(key // 3) for key in range(9)])[order]
    groups = duplicate_groups(images)
    same = np.array(order)[:, None] // 3 == np.array(order)[None, :] // 3
    assert ((groups[:, None] == groups[None, :]) == same).all()


def test_links_join_through_others():
    assert joined(5, np.array([[0, 1], [3, 1]])).tolist() == [0, 0, 1, 0, 2]


@real_files
def test_busi_twins_with_conflicting_class_are_found():
    names = ["b85=m52", "b399=m93", "b433=m145", "b437=n34"]
    classes = {"b": "benign", "m": "malignant", "n": "normal"}
    wanted = [[f"busi/{classes[n[0]]}-{int(n[1:]):04d}" for n in pair.split("=")] for pair in names]
    members = {case_id for pair in wanted for case_id in pair}
    cases = [case for case in read_raw("busi", _DATA)[0] if case.case_id in members]
    if {case.case_id for case in cases} != members:
        pytest.skip("another excerpt of BUSI lies here")
    images = np.stack([thumbnail(read_grey(case.image_path)[0]) for case in cases])
    groups = dict(zip((case.case_id for case in cases), duplicate_groups(images), strict=True))
    assert all(groups[one] == groups[other] for one, other in wanted)
    assert len(set(groups.values())) == len(wanted)
