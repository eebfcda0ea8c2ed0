"""The source of a corpus's masks: bank, curvature and ellipse, mixed by weight."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from stdiff.birads.query import Where
from stdiff.masks.bank import BankSource, MaskBank
from stdiff.masks.curvature import CurvatureSource
from stdiff.masks.ellipse import EllipseSource
from stdiff.masks.prior import Prior
from stdiff.masks.sampling import MaskSource, SampledMask
from stdiff.runtime.files import InputError

_LEAST_SIDE_PX = 16
KINDS = ("bank", "curvature", "ellipse")


class Mixture:
    """Draws from one of several sources, each as often as its weight says."""

    def __init__(self, sources: list[MaskSource], weights: list[float]) -> None:
        """Weights need not add up to 1."""
        self.sources, self.likely = sources, np.array(weights) / sum(weights)

    def sample(self, rng: np.random.Generator) -> SampledMask:
        """One mask; the choice of the source depends on the generator alone, as all else does."""
        return self.sources[rng.choice(len(self.sources), p=self.likely)].sample(rng)


def mask_source(
    weights: Mapping[str, float],
    prior: Prior | None,
    height_px: int,
    width_px: int,
    *,
    bank: MaskBank | None = None,
    where: Where | None = None,
    balance: Mapping[str, float] | None = None,
) -> MaskSource:
    """A source of masks of one size.

    Args:
        weights: of :data:`KINDS`; those of 0 are left out.
        prior: for curvature masks, and for the findings of ellipses where there is no bank.
        height_px, width_px: of the masks; a bank has its own.
        bank: real masks, for kind "bank"; with them, curvature masks are no copies of any.
        where: what every mask must be like.
        balance: column -> strength, see :func:`stdiff.masks.findings.probabilities`.

    Raises:
        InputError: no weight above 0, a weight below it, an unknown kind, a bank that is missing or
            of another size, too small a size, or masks that cannot be had.
    """
    if unknown := sorted(set(weights) - set(KINDS)):
        raise InputError(f"masks of kind {', '.join(unknown)}: expected {', '.join(KINDS)}")
    if below := {kind: weight for kind, weight in weights.items() if not weight >= 0}:
        raise InputError(f"weights {below}: expected 0 or more")
    asked = {kind: weight for kind, weight in weights.items() if weight > 0}
    if not asked:
        raise InputError(f"no kind of mask has a weight above 0, e.g. {KINDS[1]}: 1")
    if "bank" in asked:
        if bank is None:
            raise InputError("bank masks are real ones: give --cases and --splits")
        if (bank.height_px, bank.width_px) != (height_px, width_px):
            raise InputError(
                f"the bank's masks are {bank.width_px} x {bank.height_px} px, asked are "
                f"{width_px} x {height_px} px; harmonize to that size, or leave bank away"
            )
    if min(height_px, width_px) < _LEAST_SIDE_PX:
        raise InputError(
            f"masks of {width_px} x {height_px} px: expected at least {_LEAST_SIDE_PX} each way"
        )
    if prior is None and ("curvature" in asked or bank is None):
        raise InputError("curvature masks need a prior: give --prior")
    if bank is not None:
        findings, masks = [mask.findings for mask in bank.masks], [1.0] * len(bank)
    else:
        findings = [entry.findings for entry in prior.findings]
        masks = [float(entry.masks) for entry in prior.findings]
    makers = {
        "bank": lambda: BankSource(bank, where, balance),
        "curvature": lambda: CurvatureSource(
            prior, height_px, width_px, where, balance, bank and bank.known_lesions()
        ),
        "ellipse": lambda: EllipseSource(findings, masks, height_px, width_px, where, balance),
    }
    return Mixture(
        [makers[kind]() for kind in KINDS if kind in asked],
        [asked[kind] for kind in KINDS if kind in asked],
    )
