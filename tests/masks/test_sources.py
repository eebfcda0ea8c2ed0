import subprocess
import sys
from collections import Counter

import numpy as np
import pytest
from drawn_masks import PRIOR_SIZE, SIZE, bank_table, ellipse, small_prior, small_table

from stdiff.birads.lexicon import Findings
from stdiff.birads.query import parse_query
from stdiff.birads.shape import measure
from stdiff.masks.bank import MaskBank
from stdiff.masks.sampling import SampledMask
from stdiff.masks.sources import Mixture, mask_source
from stdiff.runtime.files import InputError

MASKS = [ellipse(14, 9), ellipse(8, 15), ellipse(10, 9), ellipse(18, 9)]
WIDE = (PRIOR_SIZE, PRIOR_SIZE)


def bank():
    return MaskBank(bank_table(MASKS))


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


def test_query_and_balance_reach_every_source():
    query = parse_query("pathology=malignant, orientation=not parallel, area_fraction=0.02..0.2")
    for kind, weights in (("bank", 1), ("curvature", 0.1), ("ellipse", 3)):
        source = mask_source(
            {kind: weights, "ellipse" if kind != "ellipse" else "bank": 0},
            small_prior(),
            *WIDE,
            bank=MaskBank(small_table()),
            query=query,
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
    query = parse_query("birads=4B")
    source = mask_source({"ellipse": 1}, small_prior(), 64, 64, query=query)
    assert source.sample(np.random.default_rng(0)).findings.birads == "4B"
    with pytest.raises(InputError, match="none of the 4 findings"):
        mask_source({"ellipse": 1}, small_prior(), 64, 64, bank=bank(), query=query)
    with_bank = mask_source({"ellipse": 1}, None, 64, 64, bank=bank())
    assert with_bank.sample(np.random.default_rng(0)).findings.birads == "4A"


@pytest.mark.parametrize(
    ("weights", "options", "message"),
    [
        ({}, {}, "no kind of mask has a weight above 0; write e.g. curvature: 1"),
        ({"bank": 0, "curvature": 0}, {}, "no kind of mask has a weight above 0"),
        ({"curvature": 1, "circles": 2}, {}, "circles: expected bank, curvature, ellipse"),
        ({"bank": 1}, {}, "give --cases"),
        ({"bank": 1, "curvature": 1}, {"bank": "other size"}, "64 x 64 px, expected 96 x 48 px"),
        ({"curvature": 1}, {"prior": None}, "give --prior"),
        ({"curvature": 1, "ellipse": -2}, {}, "-2}: expected 0 or more"),
        ({"ellipse": 1}, {"prior": None}, "prior"),
    ],
)
def test_impossible_mixtures_are_refused(weights, options, message):
    prior = options.get("prior", small_prior())
    of_bank = bank() if "bank" in options else None
    with pytest.raises(InputError, match=message):
        mask_source(weights, prior, 48, 96, bank=of_bank)


def test_masks_know_nothing_of_torch_or_the_collections():
    code = (
        "import sys, stdiff.masks.sources, stdiff.masks.fitting\n"
        "print([m for m in sys.modules if m.split('.')[0] == 'torch' or m == 'stdiff.datasets'])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.stdout.strip() == "[]", result.stderr


@pytest.mark.parametrize("kind", ["bank", "ellipse"])
def test_the_order_of_the_bank_does_not_matter(kind):
    table = bank_table([ellipse(5 + i, 12 - i) for i in range(6)])
    draws = [
        mask_source({kind: 1}, None, SIZE, SIZE, bank=MaskBank(t)).sample(np.random.default_rng(5))
        for t in (table, table.sample(frac=1))
    ]
    assert np.array_equal(draws[0].mask, draws[1].mask)
    assert draws[0].findings == draws[1].findings
