from collections import Counter

import numpy as np
import pytest
from drawn_masks import PRIOR_SIZE, SIZE, bank_table, ellipse, small_prior, small_table

from stdiff.birads.lexicon import Findings
from stdiff.birads.query import parse_where
from stdiff.birads.shape import measure
from stdiff.masks.bank import BankSource, MaskBank
from stdiff.masks.ellipse import EllipseSource
from stdiff.masks.sampling import SampledMask
from stdiff.masks.sources import Mixture, mask_source
from stdiff.runtime.files import InputError

MASKS = [ellipse(14, 9), ellipse(8, 15), ellipse(10, 9), ellipse(18, 9)]
WIDE = (PRIOR_SIZE, PRIOR_SIZE)


def bank():
    return MaskBank(bank_table(MASKS))


def test_a_bank_gives_the_masks_that_have_the_terms():
    source = BankSource(bank(), parse_where("pathology=benign, orientation=parallel"))
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


def test_a_bank_without_the_terms_tells_the_nearest():
    where = parse_where("pathology=benign, margin=circumscribed, birads=4A")
    with pytest.raises(InputError) as error:
        BankSource(bank(), where)
    message = str(error.value)
    assert "none of the 4 masks" in message
    assert "pathology=benign, margin=circumscribed, birads=4A" in message
    assert "the nearest, 2 of them, are like 'BI-RADS 4A, benign: " in message
    assert "curvature" in message


def test_a_bank_keeps_ranges_or_tells_the_nearest(monkeypatch):
    source = BankSource(bank(), parse_where("area_fraction=0.1..0.11, centre_x=0.5.."))
    for seed in range(5):
        found = measure(source.sample(np.random.default_rng(seed)).mask)
        assert 0.1 <= found.area_fraction <= 0.11 and found.centroid[0] >= 0.5
    monkeypatch.setattr("stdiff.masks.bank._MASKS_TRIED", 20)
    source = BankSource(bank(), parse_where("area_fraction=0.9.., solidity=0.5.."))
    with pytest.raises(InputError, match=r"nearest had area_fraction 0\.\d+ instead of 0.9..1;"):
        source.sample(np.random.default_rng(0))


def test_ellipses_obey_what_can_be_met_by_drawing_again(monkeypatch):
    findings = [mask.findings for mask in bank().masks]
    asked = "pathology=malignant, orientation=parallel, shape=oval, area_fraction=0.01..0.03"
    source = EllipseSource(findings, [1] * 4, SIZE, SIZE, parse_where(asked))
    for seed in range(3):
        sampled = source.sample(np.random.default_rng(seed))
        found = measure(sampled.mask)
        assert sampled.findings.pathology == "malignant"
        assert (found.orientation, found.shape) == ("parallel", "oval")
        assert (sampled.findings.orientation, sampled.findings.shape) == ("parallel", "oval")
        assert 0.01 <= found.area_fraction <= 0.03
    with pytest.raises(InputError, match="has the terms asked for"):
        EllipseSource(findings, [1] * 4, SIZE, SIZE, parse_where("margin=circumscribed"))
    monkeypatch.setattr("stdiff.masks.ellipse._ELLIPSES_TRIED", 10)
    source = EllipseSource(findings, [1] * 4, SIZE, SIZE, parse_where("area_fraction=0.9.."))
    with pytest.raises(InputError, match="none of 10 ellipses"):
        source.sample(np.random.default_rng(0))


class Still:
    """A source of one and the same mask."""

    def __init__(self, name):
        self.name = name

    def sample(self, rng):
        rng.random()
        return SampledMask(ellipse(9, 7), Findings(), self.name)


@pytest.mark.parametrize("weights", [[1, 3], [0.5, 0.1], [2, 2]])
def test_a_mixture_draws_in_proportion_to_its_weights(weights):
    mixture, rng = Mixture([Still("a"), Still("b")], weights), np.random.default_rng(0)
    seen = Counter(mixture.sample(rng).mask_origin for _ in range(2000))
    assert seen["a"] / 2000 == pytest.approx(weights[0] / sum(weights), abs=0.04)


def test_sources_are_mixed_by_kind_whatever_the_order():
    kinds = {"ellipse": 1, "bank": 1, "curvature": 1}
    mixed = [
        mask_source(dict(order), small_prior(), *WIDE, bank=MaskBank(small_table()))
        for order in (kinds.items(), reversed(kinds.items()))
    ]
    seen = set()
    for seed in range(10):
        first, second = (source.sample(np.random.default_rng(seed)) for source in mixed)
        assert np.array_equal(first.mask, second.mask)
        assert first.mask.shape == WIDE
        seen.add(first.mask_origin.partition(":")[0])
    assert seen == set(kinds)


def test_conditions_and_balance_reach_every_source():
    where = parse_where("pathology=malignant, orientation=not parallel, area_fraction=0.02..0.2")
    for kind, weights in (("bank", 1), ("curvature", 0.1), ("ellipse", 3)):
        source = mask_source(
            {kind: weights, "ellipse" if kind != "ellipse" else "bank": 0},
            small_prior(),
            *WIDE,
            bank=MaskBank(small_table()),
            where=where,
            balance={"margin": 1},
        )
        for seed in range(3):
            sampled = source.sample(np.random.default_rng(seed))
            assert sampled.mask_origin.startswith(kind)
            assert sampled.findings.pathology == "malignant"
            found = measure(sampled.mask)
            assert found.orientation == "not parallel"
            assert 0.02 <= found.area_fraction <= 0.2


def test_ellipses_have_the_findings_of_the_bank_or_else_of_the_prior():
    where = parse_where("birads=4B")
    source = mask_source({"ellipse": 1}, small_prior(), 64, 64, where=where)
    assert source.sample(np.random.default_rng(0)).findings.birads == "4B"
    with pytest.raises(InputError, match="none of the 4 findings"):
        mask_source({"ellipse": 1}, small_prior(), 64, 64, bank=bank(), where=where)
    with_bank = mask_source({"ellipse": 1}, None, 64, 64, bank=bank())
    assert with_bank.sample(np.random.default_rng(0)).findings.birads == "4A"


@pytest.mark.parametrize(
    ("weights", "options", "message"),
    [
        ({}, {}, "no kind of mask has a weight above 0, e.g. curvature: 1"),
        ({"bank": 0, "curvature": 0}, {}, "no kind of mask has a weight above 0"),
        ({"curvature": 1, "circles": 2}, {}, "circles: expected bank, curvature, ellipse"),
        ({"bank": 1}, {}, "give --cases"),
        ({"bank": 1, "curvature": 1}, {"bank": "other size"}, "64 x 64 px, asked are 96 x 48 px"),
        ({"curvature": 1}, {"prior": None}, "give --prior"),
        ({"curvature": 1, "ellipse": -2}, {}, "-2}: expected 0 or more"),
        ({"ellipse": 1}, {"prior": None}, "prior"),
    ],
)
def test_mixtures_that_cannot_be_had_are_refused(weights, options, message):
    prior = options.get("prior", small_prior())
    of_bank = bank() if "bank" in options else None
    with pytest.raises(InputError, match=message):
        mask_source(weights, prior, 48, 96, bank=of_bank)
