"""The masks of a corpus: bank, curvature and ellipse masks, mixed by weight."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from stdiff.birads.query import Query
from stdiff.masks.bank import BankSource, MaskBank
from stdiff.masks.curvature import CurvatureSource
from stdiff.masks.ellipse import EllipseSource
from stdiff.masks.prior import Prior
from stdiff.masks.sampling import MaskSource, SampledMask
from stdiff.runtime.files import InputError

_MIN_SIDE_PX = 16
KINDS = ("bank", "curvature", "ellipse")


class Mixture:
    """Draws from one of several sources, with probabilities proportional to their weights."""

    def __init__(self, sources: list[MaskSource], weights: list[float]) -> None:
        """Weights need not add up to 1."""
        self.sources, self.probabilities = sources, np.array(weights) / sum(weights)

    def sample(self, rng: np.random.Generator) -> SampledMask:
        """One mask; the source is drawn from the same generator."""
        return self.sources[rng.choice(len(self.sources), p=self.probabilities)].sample(rng)


def mask_source(
    weights: Mapping[str, float],
    prior: Prior | None,
    height_px: int,
    width_px: int,
    *,
    bank: MaskBank | None = None,
    query: Query | None = None,
    balance: Mapping[str, float] | None = None,
) -> MaskSource:
    """A source of masks of one size.

    Args:
        weights: kind in :data:`KINDS` → weight, >= 0.
        prior: for curvature masks, and for the findings of ellipses without a bank.
        height_px, width_px: of the masks; those of a bank must be equal.
        bank: real masks, for kind "bank"; curvature masks are not copies of them.
        query: what every mask must match.
        balance: column -> strength, see :func:`stdiff.masks.findings.balanced_probabilities`.

    Raises:
        InputError: no positive weight, a negative one, an unknown kind, a bank that is missing or
            of another size, too small a size, or a query that no mask can match.
    """
    if unknown := sorted(set(weights) - set(KINDS)):
        raise InputError(f"unknown kind of mask {', '.join(unknown)}: expected {', '.join(KINDS)}")
    if below := {kind: weight for kind, weight in weights.items() if not weight >= 0}:
        raise InputError(f"weights of masks {below}: expected 0 or more")
    used = {kind: weight for kind, weight in weights.items() if weight > 0}
    if not used:
        raise InputError(f"no kind of mask has a weight above 0; write e.g. {KINDS[1]}: 1")
    if "bank" in used:
        if bank is None:
            raise InputError("bank masks are real ones: give --cases and --splits")
        if (bank.height_px, bank.width_px) != (height_px, width_px):
            raise InputError(
                f"the bank's masks are {bank.width_px} x {bank.height_px} px, expected "
                f"{width_px} x {height_px} px; harmonize to that size, or leave out kind bank"
            )
    if min(height_px, width_px) < _MIN_SIDE_PX:
        raise InputError(
            f"masks of {width_px} x {height_px} px: expected at least {_MIN_SIDE_PX} each way"
        )
    if prior is None and ("curvature" in used or bank is None):
        raise InputError("curvature masks need a prior: give --prior")
    if bank is not None:
        findings, masks = [mask.findings for mask in bank.masks], [1.0] * len(bank)
    else:
        findings = [entry.findings for entry in prior.findings]
        masks = [float(entry.masks) for entry in prior.findings]
    makers = {
        "bank": lambda: BankSource(bank, query, balance),
        "curvature": lambda: CurvatureSource(
            prior, height_px, width_px, query, balance, bank and bank.known_lesions()
        ),
        "ellipse": lambda: EllipseSource(findings, masks, height_px, width_px, query, balance),
    }
    return Mixture(
        [makers[kind]() for kind in KINDS if kind in used],
        [used[kind] for kind in KINDS if kind in used],
    )
