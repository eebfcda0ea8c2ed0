from collections import Counter

import numpy as np
import pandas as pd
import pytest
from drawn_masks import SEEDS, bank_table, ellipse, examples, lesions
from hypothesis import given
from hypothesis import strategies as st

from stdiff.birads.lexicon import Findings
from stdiff.birads.shape import count_lesions, measure
from stdiff.masks.bank import BankSource, MaskBank
from stdiff.masks.ellipse import EllipseSource
from stdiff.runtime.files import InputError
from stdiff.table.cases import read_cases, write_cases

CHANGES = ("flip", "rotate_deg", "scale", "shift_x_px", "shift_y_px", "elastic")


def ellipse_source(bank):
    """Ellipses with the findings of a bank."""
    findings = [mask.findings for mask in bank.masks]
    return EllipseSource(findings, [1.0] * len(bank), bank.height_px, bank.width_px)


def changes_of(sampled):
    """(origin, what was done to it) of a mask of the bank."""
    origin, *changes = sampled.mask_origin.split(";")
    return origin, {name: float(value) for name, value in (c.split("=") for c in changes)}


@given(lesions(), SEEDS)
@examples(120)
def test_a_bank_mask_keeps_what_its_caption_says(mask, seed):
    table = bank_table([mask])
    sampled = BankSource(MaskBank(table)).sample(np.random.default_rng(seed))
    assert sampled.mask.shape == mask.shape
    assert sampled.mask.dtype == np.uint8
    assert set(np.unique(sampled.mask)) == {0, 255}
    assert count_lesions(sampled.mask) == count_lesions(mask)
    assert measure(sampled.mask).orientation == measure(mask).orientation
    # Scaled by at most 1.15 in each direction, and never less than half of what is expected.
    growth = np.count_nonzero(sampled.mask) / np.count_nonzero(mask)
    assert 0.5 * 0.85**2 <= growth <= 2 * 1.15**2
    assert sampled.findings == Findings.from_row(table.to_dict("records")[0])
    origin, done = changes_of(sampled)
    assert origin == "bank:busi/0000"
    assert list(done) == [name for name in CHANGES if name in done]
    assert abs(done.get("rotate_deg", 0)) <= 10 and 0.85 <= done.get("scale", 1) <= 1.15


@given(st.floats(5, 14), st.floats(5, 14), SEEDS)
@examples(60)
def test_a_lesion_within_the_image_is_not_pushed_far_out(a, b, seed):
    mask = ellipse(a, b, 32, 20)
    sampled = BankSource(MaskBank(bank_table([mask]))).sample(np.random.default_rng(seed))
    # 0.8: the deformation may push an outline at the border a little over it.
    assert np.count_nonzero(sampled.mask) >= 0.8 * 0.85**2 * np.count_nonzero(mask)


def test_a_lesion_cut_by_the_border_stays_cut():
    source = BankSource(MaskBank(bank_table([ellipse(12, 12, 32, 2)])))
    for seed in range(30):
        sampled = source.sample(np.random.default_rng(seed))
        assert sampled.mask[0].any()
        assert not {"rotate_deg", "shift_y_px"} & set(changes_of(sampled)[1])


def test_what_was_done_to_a_bank_mask_is_told():
    mask = ellipse(20, 10)
    source = BankSource(MaskBank(bank_table([mask])))
    told = []
    for seed in range(40):
        sampled = source.sample(np.random.default_rng(seed))
        told.append(changes_of(sampled)[1])
        found, was = measure(sampled.mask), measure(mask)
        scale = told[-1]["scale"]
        # The elastic deformation adds to it: 1.3 px, root mean square, of a lesion 28 px wide.
        assert found.area_fraction == pytest.approx(was.area_fraction * scale**2, rel=0.25)
        for axis, name in enumerate(("shift_x_px", "shift_y_px")):
            moved_px = (found.centroid[axis] - was.centroid[axis]) * mask.shape[1 - axis]
            assert moved_px == pytest.approx(told[-1].get(name, 0), abs=3)
    assert {change.get("flip", 0) for change in told} == {0, 1}
    assert min(change["rotate_deg"] for change in told) < -7
    assert max(change["rotate_deg"] for change in told) > 7


def test_a_bank_does_not_repeat_itself_and_uses_all_its_masks():
    masks = [ellipse(12, 8), ellipse(7, 14), ellipse(10, 9, 20, 20)]
    source = BankSource(MaskBank(bank_table(masks)))
    sampled = [source.sample(np.random.default_rng(seed)) for seed in range(60)]
    assert len({s.mask.tobytes() for s in sampled}) == 60
    origins = Counter(changes_of(s)[0] for s in sampled)
    assert len(origins) == 3
    assert min(origins.values()) >= 8


@pytest.mark.parametrize("source", [BankSource, ellipse_source])
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
@examples(120)
def test_an_ellipse_mask_is_one_lesion_and_says_what_it_looks_like(seed, size):
    height, width = size
    seen = [ellipse(9, 7, width / 2, height / 2, height, width)] * 2
    sampled = ellipse_source(MaskBank(bank_table(seen))).sample(np.random.default_rng(seed))
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
    source = ellipse_source(bank)
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
        ellipse_source(MaskBank(bank_table([ellipse(9, 7)], [None])))
