import numpy as np
import pytest
from drawn_masks import SEEDS, SIZE, bank_table, ellipse, examples
from hypothesis import given
from hypothesis import strategies as st

from stdiff.birads.query import parse_query
from stdiff.birads.shape import count_lesions, measure
from stdiff.masks.bank import MaskBank
from stdiff.masks.ellipse import EllipseSource
from stdiff.runtime.files import InputError


def ellipse_source(bank):
    """Ellipses with the findings of a bank."""
    findings = [mask.findings for mask in bank.masks]
    return EllipseSource(findings, [1.0] * len(bank), bank.height_px, bank.width_px)


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


def test_ellipses_match_a_query_by_rejection(monkeypatch):
    findings = [mask.findings for mask in MaskBank(bank_table([ellipse(14, 9)] * 4)).masks]
    text = "pathology=malignant, orientation=parallel, shape=oval, area_fraction=0.01..0.03"
    source = EllipseSource(findings, [1] * 4, SIZE, SIZE, parse_query(text))
    for seed in range(3):
        sampled = source.sample(np.random.default_rng(seed))
        found = measure(sampled.mask)
        assert sampled.findings.pathology == "malignant"
        assert (found.orientation, found.shape) == ("parallel", "oval")
        assert (sampled.findings.orientation, sampled.findings.shape) == ("parallel", "oval")
        assert 0.01 <= found.area_fraction <= 0.03
    with pytest.raises(InputError, match="matches the query"):
        EllipseSource(findings, [1] * 4, SIZE, SIZE, parse_query("margin=circumscribed"))
    monkeypatch.setattr("stdiff.masks.ellipse._ELLIPSES_TRIED", 10)
    source = EllipseSource(findings, [1] * 4, SIZE, SIZE, parse_query("area_fraction=0.9.."))
    with pytest.raises(InputError, match="none of 10 ellipses"):
        source.sample(np.random.default_rng(0))
