import subprocess
import sys
from collections import Counter

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stdiff.cases import case_row, png_cell, read_cases, write_cases
from stdiff.files import InputError
from stdiff.lexicon import Findings
from stdiff.masks.bank import MaskBank
from stdiff.masks.ellipse import EllipseSource
from stdiff.masks.outline import ellipse_bending
from stdiff.masks.shape import MIN_AREA_PX, count_lesions, largest_lesion, measure

SIZE = 64
SEEDS = st.integers(0, 2**32 - 1)


def ellipse(a, b, x0=32.0, y0=32.0, height=SIZE, width=SIZE):
    y, x = np.ogrid[:height, :width]
    inside = ((x + 0.5 - x0) / a) ** 2 + ((y + 0.5 - y0) / b) ** 2 <= 1
    return inside.astype(np.uint8) * 255


def bank_table(masks, pathologies=("benign", "malignant")):
    rows = [
        case_row(
            case_id=f"busi/{i:04d}",
            mask=png_cell(mask, "m"),
            lesion_count=count_lesions(mask),
            **Findings(
                pathology=pathologies[i % len(pathologies)],
                birads="4A",
                margin=("indistinct", "spiculated"),
                orientation=measure(mask).orientation if mask.any() else None,
                echo_pattern="hypoechoic",
            ).as_row(),
        )
        for i, mask in enumerate(masks)
    ]
    return pd.DataFrame(rows)


@st.composite
def lesions(draw):
    """A mask with one or two ellipses, wholly or partly in the image, neither empty nor full."""
    mask = np.zeros((SIZE, SIZE), np.uint8)
    for _ in range(draw(st.integers(1, 2))):
        x0, y0 = (draw(st.floats(2, 62)) for _ in range(2))
        mask |= ellipse(draw(st.floats(2, 25)), draw(st.floats(2, 25)), x0, y0)
    return mask


@given(st.floats(3, 25), st.floats(3, 25), st.floats(26, 38), st.floats(26, 38))
@settings(max_examples=80, deadline=None)
def test_an_ellipse_is_measured_as_it_was_drawn(a, b, x0, y0):
    found = measure(ellipse(a, b, x0, y0))
    assert found.area_fraction == pytest.approx(np.pi * a * b / SIZE**2, rel=0.25)
    assert found.aspect == pytest.approx(b / a, rel=0.2)
    assert found.solidity > 0.99
    assert found.shape == ("round" if found.axis_ratio > 0.85 else "oval")
    assert found.centroid == pytest.approx((x0 / SIZE, y0 / SIZE), abs=0.01)
    if not 0.8 < b / a < 1.25:
        assert found.orientation == ("parallel" if a > b else "not parallel")


def test_a_star_is_irregular_and_a_slanted_line_can_be_measured():
    star = ellipse(28, 3) | ellipse(3, 28)
    assert measure(star).shape == "irregular"
    assert measure(np.eye(9, dtype=np.uint8)).solidity == 1.0
    assert measure(ellipse(0.8, 0.8, 5.5, 5.5)).area_fraction == 1 / SIZE**2


def test_only_the_largest_lesion_is_measured():
    large, small = ellipse(10, 5, 20, 20), ellipse(2, 6, 50, 50)
    assert count_lesions(large | small) == 2
    assert np.array_equal(largest_lesion(large | small), large > 0)
    assert measure(large | small) == measure(large)


def test_an_empty_mask_has_no_shape():
    with pytest.raises(ValueError, match="no lesion"):
        measure(np.zeros((8, 8), np.uint8))


def polar(radius_of, size=240, scale=60.0):
    """A filled outline about the middle: radius (in units of `scale` pixels) by angle."""
    y, x = np.mgrid[:size, :size] + 0.5 - size / 2
    return np.hypot(x, y) <= scale * radius_of(np.arctan2(y, x))


SPICULATED = polar(lambda t: 0.7 + 0.6 * np.clip(1 - np.abs(np.sin(6 * t)) / 0.35, 0, 1))
LOBED = polar(lambda t: 1 + 0.12 * np.abs(np.sin(5 * t)))
HEXAGON = polar(lambda t: np.cos(np.pi / 6) / np.cos((t + np.pi / 6) % (np.pi / 3) - np.pi / 6))
KIDNEY = polar(lambda t: 1 - 0.45 * np.exp(-((t / 0.5) ** 2)))
DISC = polar(np.ones_like)


def test_a_disc_is_the_unit_of_the_outline():
    for scale in (10, 30, 80):
        found = measure(polar(np.ones_like, scale=scale))
        assert found.compactness == pytest.approx(1, abs=0.01)
        assert found.curvature_energy == pytest.approx(1, abs=0.1)
        assert (found.lobulations, found.shape, found.margin) == (0, "round", "circumscribed")


def test_an_ellipse_bends_as_its_formula_says():
    found = measure(ellipse(90, 45, 120, 120, 240, 240))
    # Ramanujan's perimeter of a 2:1 ellipse.
    perimeter = np.pi * (3 * 135 - np.sqrt((3 * 90 + 45) * (90 + 3 * 45)))
    assert found.compactness == pytest.approx(4 * np.pi**2 * 90 * 45 / perimeter**2, rel=0.01)
    assert found.curvature_energy == pytest.approx(ellipse_bending(0.5), rel=0.05)
    assert ellipse_bending(1) == pytest.approx(1)


@pytest.mark.parametrize(
    ("mask", "shape", "margin", "lobulations"),
    [
        (DISC, "round", "circumscribed", 0),
        (KIDNEY, None, None, 1),
        (LOBED, "irregular", "microlobulated", 10),
        (SPICULATED, "irregular", "spiculated", 12),
        (HEXAGON, None, "angular", 0),
    ],
    ids=["disc", "kidney", "lobed", "spiculated", "hexagon"],
)
def test_outlines_are_told_apart(mask, shape, margin, lobulations):
    found = measure(mask)
    assert found.lobulations == lobulations
    assert shape is None or found.shape == shape
    assert margin is None or found.margin == margin


def test_spikes_bend_more_and_fill_less_than_lobes_and_lobes_than_a_disc():
    smooth, lobed, spiky = map(measure, (DISC, LOBED, SPICULATED))
    assert smooth.curvature_energy < lobed.curvature_energy < spiky.curvature_energy
    assert smooth.compactness > lobed.compactness > spiky.compactness
    assert smooth.solidity > lobed.solidity > spiky.solidity


OUTLINE = ("solidity", "compactness", "curvature_energy", "axis_ratio")


@given(
    st.integers(2, 4), st.floats(0, 0.12), st.floats(0.5, 1), st.floats(0, 3), st.integers(35, 60)
)
@settings(max_examples=60, deadline=None)
def test_the_outline_depends_on_neither_side_nor_place_nor_size(order, depth, ratio, phase, scale):
    def radius(t):
        flat = ratio / np.hypot(ratio * np.cos(t), np.sin(t))
        return flat * (1 + depth * np.cos(order * t + phase))

    mask = polar(radius, scale=scale)
    found = measure(mask)
    moved = np.roll(mask, (9, -11), (0, 1))
    for other in (mask[:, ::-1], mask[::-1], np.rot90(mask), moved):
        turned = measure(other)
        for name in OUTLINE:
            assert getattr(turned, name) == pytest.approx(getattr(found, name), rel=0.02), name
    assert measure(np.rot90(mask)).aspect == pytest.approx(1 / found.aspect, rel=1e-6)
    finer = measure(polar(radius, size=480, scale=2 * scale))
    for name in OUTLINE:
        # What is left of the pixels' staircase bends a little more the coarser they are.
        rel = 0.2 if name == "curvature_energy" else 0.02
        assert getattr(finer, name) == pytest.approx(getattr(found, name), rel=rel), name


@given(lesions())
@settings(max_examples=120, deadline=None)
def test_measures_stay_within_their_ranges(mask):
    found = measure(mask)
    assert 0 < found.area_fraction <= 1 and 0 < found.solidity <= 1
    assert 0 < found.axis_ratio <= 1 and found.aspect > 0
    if np.count_nonzero(largest_lesion(mask)) < MIN_AREA_PX:
        assert found.compactness is found.curvature_energy is found.lobulations is None
    elif found.compactness is not None:
        assert 0 < found.compactness <= 1 + 1e-9
        assert found.curvature_energy >= 1 - 1e-9
        assert found.lobulations >= 0


def test_a_lesion_that_fills_the_mask_can_be_measured():
    found = measure(np.ones((40, 60), np.uint8))
    assert (found.area_fraction, found.solidity, found.orientation) == (1, 1, "parallel")


@given(lesions(), SEEDS)
@settings(max_examples=120, deadline=None)
def test_a_bank_mask_keeps_what_its_caption_says(mask, seed):
    table = bank_table([mask])
    sampled = MaskBank(table).sample(np.random.default_rng(seed))
    assert sampled.mask.shape == mask.shape
    assert sampled.mask.dtype == np.uint8
    assert set(np.unique(sampled.mask)) == {0, 255}
    assert count_lesions(sampled.mask) == count_lesions(mask)
    assert measure(sampled.mask).orientation == measure(mask).orientation
    # Scaled by at most 1.15 in each direction, and never less than half of what is expected.
    growth = np.count_nonzero(sampled.mask) / np.count_nonzero(mask)
    assert 0.5 * 0.85**2 <= growth <= 2 * 1.15**2
    assert sampled.findings == Findings.from_row(table.to_dict("records")[0])
    assert sampled.mask_origin == "bank:busi/0000"


@given(st.floats(5, 14), st.floats(5, 14), SEEDS)
@settings(max_examples=60, deadline=None)
def test_a_lesion_within_the_image_is_not_pushed_far_out(a, b, seed):
    mask = ellipse(a, b, 32, 20)
    sampled = MaskBank(bank_table([mask])).sample(np.random.default_rng(seed))
    # 0.8: the deformation may push an outline at the border a little over it.
    assert np.count_nonzero(sampled.mask) >= 0.8 * 0.85**2 * np.count_nonzero(mask)


def test_a_lesion_cut_by_the_border_stays_cut():
    bank = MaskBank(bank_table([ellipse(12, 12, 32, 2)]))
    for seed in range(30):
        assert bank.sample(np.random.default_rng(seed)).mask[0].any()


def test_a_bank_does_not_repeat_itself_and_uses_all_its_masks():
    bank = MaskBank(bank_table([ellipse(12, 8), ellipse(7, 14), ellipse(10, 9, 20, 20)]))
    sampled = [bank.sample(np.random.default_rng(seed)) for seed in range(60)]
    assert len({s.mask.tobytes() for s in sampled}) == 60
    origins = Counter(s.mask_origin for s in sampled)
    assert len(origins) == 3
    assert min(origins.values()) >= 8


@pytest.mark.parametrize("source", [lambda bank: bank, EllipseSource])
def test_the_order_of_the_bank_does_not_matter(source):
    table = bank_table([ellipse(5 + i, 12 - i) for i in range(6)])
    draws = [
        source(MaskBank(t)).sample(np.random.default_rng(5)) for t in (table, table.sample(frac=1))
    ]
    assert np.array_equal(draws[0].mask, draws[1].mask)
    assert draws[0].findings == draws[1].findings


def test_a_bank_is_built_from_rows_as_read_from_a_case_table(tmp_path):
    table = bank_table([ellipse(12, 8)])
    write_cases(table.to_dict("records"), tmp_path / "cases.parquet")
    bank = MaskBank(read_cases(tmp_path / "cases.parquet"))
    assert bank.masks[0].findings.margin == ("indistinct", "spiculated")


def test_every_bad_mask_of_a_bank_is_named():
    good = ellipse(9, 7)
    table = bank_table(
        [good, good * 0, good * 0 + 255, good // 2, ellipse(9, 7, height=32, width=64), good, good]
    )
    table.at[5, "mask"] = None
    table.at[6, "mask"] = {"bytes": b"no png", "path": "m.png"}
    with pytest.raises(InputError) as error:
        MaskBank(table)
    message = str(error.value)
    assert "busi/0000" not in message
    for line in (
        "0001: mask holds no lesion",
        "0002: mask is lesion all over",
        "0003: mask holds values other",
        "0004: mask is (32, 64)",
        "0005: no mask that can be decoded",
        "0006: no mask that can be decoded",
    ):
        assert line in message


def test_an_empty_bank_and_a_repeated_case_are_refused():
    table = bank_table([ellipse(9, 7)])
    with pytest.raises(InputError, match="bank is empty"):
        MaskBank(table[:0])
    with pytest.raises(InputError, match="more than once"):
        MaskBank(pd.concat([table, table]))


@given(SEEDS, st.sampled_from([(64, 64), (48, 96)]))
@settings(max_examples=120, deadline=None)
def test_an_ellipse_mask_is_one_lesion_and_says_what_it_looks_like(seed, size):
    height, width = size
    seen = [ellipse(9, 7, width / 2, height / 2, height, width)] * 2
    sampled = EllipseSource(MaskBank(bank_table(seen))).sample(np.random.default_rng(seed))
    assert sampled.mask.shape == size
    assert set(np.unique(sampled.mask)) == {0, 255}
    assert count_lesions(sampled.mask) == 1
    measured = measure(sampled.mask)
    assert (sampled.findings.orientation, sampled.findings.shape) == (
        measured.orientation,
        measured.shape,
    )
    assert sampled.findings.birads == "4A"
    assert sampled.mask_origin == "ellipse"


def test_malignant_ellipses_are_taller_and_less_solid_and_as_frequent_as_in_the_bank():
    bank = MaskBank(bank_table([ellipse(9, 7)] * 4, ["benign", "benign", "benign", "malignant"]))
    source = EllipseSource(bank)
    sampled = [source.sample(np.random.default_rng(seed)) for seed in range(400)]
    shapes = {
        pathology: [measure(s.mask) for s in sampled if s.findings.pathology == pathology]
        for pathology in ("benign", "malignant")
    }
    assert 60 < len(shapes["malignant"]) < 145
    parallel = {p: np.mean([s.orientation == "parallel" for s in v]) for p, v in shapes.items()}
    assert parallel["benign"] > 0.9
    assert parallel["malignant"] < 0.15
    solidity = {p: np.mean([s.solidity for s in v]) for p, v in shapes.items()}
    assert solidity["malignant"] < solidity["benign"] - 0.03


def test_ellipses_need_a_known_pathology():
    with pytest.raises(InputError, match="known pathology"):
        EllipseSource(MaskBank(bank_table([ellipse(9, 7)], [None])))


def test_masks_know_nothing_of_torch_or_the_collections():
    code = (
        "import sys, stdiff.masks.bank, stdiff.masks.ellipse\n"
        "print([m for m in sys.modules if m.split('.')[0] == 'torch' or m == 'stdiff.datasets'])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.stdout.strip() == "[]", result.stderr
