from collections import Counter

import numpy as np
import pandas as pd
import pytest
from drawn_masks import SEEDS, bank_table, ellipse, examples, lesions
from hypothesis import given
from hypothesis import strategies as st

from stdiff.birads.lexicon import Findings
from stdiff.birads.query import parse_query
from stdiff.birads.shape import count_lesions, measure
from stdiff.masks.bank import BankSource, MaskBank
from stdiff.runtime.files import InputError
from stdiff.table.cases import read_cases, write_cases

MASKS = [ellipse(14, 9), ellipse(8, 15), ellipse(10, 9), ellipse(18, 9)]
CHANGES = ("flip", "rotate_deg", "scale", "shift_x_px", "shift_y_px", "elastic")


def small_bank():
    return MaskBank(bank_table(MASKS))


def changes_of(sampled):
    """(origin, changes) of a mask of the bank."""
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


def test_the_change_of_a_bank_mask_is_recorded():
    mask = ellipse(20, 10)
    source = BankSource(MaskBank(bank_table([mask])))
    changes = []
    for seed in range(40):
        sampled = source.sample(np.random.default_rng(seed))
        changes.append(changes_of(sampled)[1])
        found, was = measure(sampled.mask), measure(mask)
        scale = changes[-1]["scale"]
        # The elastic deformation adds to it: 1.3 px, root mean square, of a lesion 28 px wide.
        assert found.area_fraction == pytest.approx(was.area_fraction * scale**2, rel=0.25)
        for axis, name in enumerate(("shift_x_px", "shift_y_px")):
            moved_px = (found.centroid[axis] - was.centroid[axis]) * mask.shape[1 - axis]
            assert moved_px == pytest.approx(changes[-1].get(name, 0), abs=3)
    assert {change.get("flip", 0) for change in changes} == {0, 1}
    assert min(change["rotate_deg"] for change in changes) < -7
    assert max(change["rotate_deg"] for change in changes) > 7


def test_a_bank_does_not_repeat_itself_and_uses_all_its_masks():
    masks = [ellipse(12, 8), ellipse(7, 14), ellipse(10, 9, 20, 20)]
    source = BankSource(MaskBank(bank_table(masks)))
    sampled = [source.sample(np.random.default_rng(seed)) for seed in range(60)]
    assert len({s.mask.tobytes() for s in sampled}) == 60
    origins = Counter(changes_of(s)[0] for s in sampled)
    assert len(origins) == 3
    assert min(origins.values()) >= 8


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
        "0005: mask is missing or cannot be decoded",
        "0006: mask is missing or cannot be decoded",
    ):
        assert line in message


def test_an_empty_bank_and_a_repeated_case_are_refused():
    table = bank_table([ellipse(9, 7)])
    with pytest.raises(InputError, match="bank is empty"):
        MaskBank(table[:0])
    with pytest.raises(InputError, match="more than once"):
        MaskBank(pd.concat([table, table]))


def test_a_bank_gives_the_masks_that_have_the_terms():
    source = BankSource(
        MaskBank(bank_table(MASKS)), parse_query("pathology=benign, orientation=parallel")
    )
    for seed in range(10):
        sampled = source.sample(np.random.default_rng(seed))
        assert sampled.findings.pathology == "benign"
        assert measure(sampled.mask).orientation == "parallel"


def test_a_bank_is_balanced():
    masks, pathologies = [ellipse(14, 9)] * 10, ["benign"] * 9 + ["malignant"]
    source = BankSource(MaskBank(bank_table(masks, pathologies)), balance={"pathology": 1})
    rng = np.random.default_rng(0)
    seen = Counter(source.sample(rng).findings.pathology for _ in range(100))
    assert seen["malignant"] == pytest.approx(50, abs=18)


def test_a_bank_without_the_terms_names_the_nearest():
    query = parse_query("pathology=benign, margin=circumscribed, birads=4A")
    with pytest.raises(InputError) as error:
        BankSource(small_bank(), query)
    message = str(error.value)
    assert "none of the 4 masks" in message
    assert "pathology=benign, margin=circumscribed, birads=4A" in message
    assert "the nearest, 2 of them, are like 'BI-RADS 4A, benign: " in message
    assert "curvature" in message


def test_a_bank_keeps_ranges_or_names_the_nearest(monkeypatch):
    source = BankSource(
        MaskBank(bank_table(MASKS)), parse_query("area_fraction=0.1..0.11, centre_x=0.5..")
    )
    for seed in range(5):
        found = measure(source.sample(np.random.default_rng(seed)).mask)
        assert 0.1 <= found.area_fraction <= 0.11 and found.centroid[0] >= 0.5
    monkeypatch.setattr("stdiff.masks.bank._MASKS_TRIED", 20)
    source = BankSource(
        MaskBank(bank_table(MASKS)), parse_query("area_fraction=0.9.., solidity=0.5..")
    )
    with pytest.raises(InputError, match=r"nearest had area_fraction 0\.\d+ instead of 0.9..1;"):
        source.sample(np.random.default_rng(0))
