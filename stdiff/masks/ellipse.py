"""The published mask generator: an ellipse with elastic deformation (arXiv 2507.07721).

((x - x0) / a)^2 + ((y - y0) / b)^2 = 1 with a <= x0 <= W - a and b <= y0 <= H - b; benign a > b,
malignant a < b; three size bands; the elastic deformation is stronger in malignant lesions. The
paper gives no numbers for bands and deformation; those below are our choice.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from scipy import ndimage

from stdiff.birads.lexicon import Findings
from stdiff.birads.query import Query
from stdiff.birads.shape import largest_lesion, measure
from stdiff.masks.findings import balanced_probabilities
from stdiff.masks.sampling import (
    SampledMask,
    as_mask,
    elastic_displacement,
    equivalent_diameter_px,
    resample,
)
from stdiff.runtime.files import InputError

# Long semi-axis as a fraction of the image's shorter side: small, medium, large.
SIZE_BANDS = ((0.06, 0.12), (0.12, 0.20), (0.20, 0.32))
# Short over long axis.
AXIS_RATIO = (0.5, 0.9)
# In units of the ellipse's equivalent diameter.
ELASTIC_AMPLITUDE = {"benign": 0.03, "malignant": 0.10}
ELASTIC_SMOOTHNESS = 0.15
_MEASURED = ("shape", "orientation")
_ELLIPSES_TRIED = 500


class EllipseSource:
    """Draws ellipses with the findings of benign or malignant cases.

    Findings are as frequent as in the table; orientation and shape are then those measured on the
    mask. Orientation, shape and ranges of the query are matched by rejection.

    Raises:
        InputError: no entry is benign or malignant and matches the query.
    """

    def __init__(
        self,
        findings: Sequence[Findings],
        masks: Sequence[float],
        height_px: int,
        width_px: int,
        query: Query | None = None,
        balance: Mapping[str, float] | None = None,
    ) -> None:
        """Choose the entries that match the query; ``masks``: number of masks of each entry."""
        self.height_px, self.width_px, self.query = height_px, width_px, query or Query()
        of_case = {c: terms for c, terms in self.query.terms.items() if c not in _MEASURED}
        kept = [
            number
            for number, entry in enumerate(findings)
            if entry.pathology in ELASTIC_AMPLITUDE and Query(of_case).matches(entry)
        ]
        if not kept:
            raise InputError(
                "ellipse masks need cases of known pathology: none of the "
                f"{len(findings)} findings is benign or malignant and matches the query; "
                "use bank or curvature masks"
            )
        self.findings = [findings[number] for number in kept]
        counts = [masks[number] for number in kept]
        self.probabilities = balanced_probabilities(self.findings, counts, balance or {})

    def sample(self, rng: np.random.Generator) -> SampledMask:
        """A deformed ellipse and its findings.

        Raises:
            InputError: none of many ellipses matched the query.
        """
        for _ in range(_ELLIPSES_TRIED):
            findings = self.findings[rng.choice(len(self.findings), p=self.probabilities)]
            ellipse_HW = _ellipse(self.height_px, self.width_px, findings.pathology, rng)
            mask_HW = as_mask(_deform(ellipse_HW, ELASTIC_AMPLITUDE[findings.pathology], rng))
            measured = measure(mask_HW)
            findings = replace(findings, orientation=measured.orientation, shape=measured.shape)
            if self.query.matches(findings) and not self.query.range_violations(measured, 1):
                return SampledMask(mask_HW, findings, "ellipse")
        raise InputError(
            f"none of {_ELLIPSES_TRIED} ellipses had the shape, orientation and ranges of the "
            "query; use curvature masks, which are drawn to match it"
        )


def _ellipse(height_px: int, width_px: int, pathology: str, rng: np.random.Generator) -> np.ndarray:
    """(height, width) bool: a filled ellipse within the image."""
    band = SIZE_BANDS[rng.integers(len(SIZE_BANDS))]
    long_px = rng.uniform(*band) * min(height_px, width_px)
    short_px = long_px * rng.uniform(*AXIS_RATIO)
    a, b = (long_px, short_px) if pathology == "benign" else (short_px, long_px)
    x0, y0 = rng.uniform(a, width_px - a), rng.uniform(b, height_px - b)
    # Pixel (row, column) covers [column, column + 1) x [row, row + 1); its centre decides.
    y_H1, x_1W = np.ogrid[:height_px, :width_px]
    return ((x_1W + 0.5 - x0) / a) ** 2 + ((y_H1 + 0.5 - y0) / b) ** 2 <= 1


def _deform(ellipse_HW: np.ndarray, amplitude: float, rng: np.random.Generator) -> np.ndarray:
    """The ellipse after elastic deformation, its largest part without holes."""
    diameter_px = equivalent_diameter_px(ellipse_HW)
    displacement_2HW = elastic_displacement(
        ellipse_HW.shape, amplitude * diameter_px, ELASTIC_SMOOTHNESS * diameter_px, rng
    )
    source_2HW = np.indices(ellipse_HW.shape) + displacement_2HW
    deformed_HW = largest_lesion(resample(ellipse_HW.astype(np.uint8), source_2HW))
    deformed_HW = ndimage.binary_fill_holes(deformed_HW)
    # Strong deformation can tear a small ellipse apart; it is kept undeformed then.
    if 2 * deformed_HW.sum() < ellipse_HW.sum():
        return ellipse_HW
    return deformed_HW
