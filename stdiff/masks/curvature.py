"""Lesion outlines built from their curvature along the arc, guided by the clinical prior.

1. Findings that occur together are drawn, then area, axes, centre and roughness given these terms
   (:mod:`stdiff.masks.prior`).
2. κ(s)/2π = 1 + Σ c_k e^{2πiks} with random phases and the drawn roughness in each band of orders,
   plus the events of the margin: corners, waves or spikes (:mod:`stdiff.masks.roughness`).
3. The tangent angle, its integral, is integrated to a closed curve (:mod:`stdiff.birads.curve`).
   It is stretched to the drawn axes and area, moved to its centre, and rasterised.
4. What comes out is measured (:mod:`stdiff.birads.shape`). An outline that crosses itself or does
   not have the shape, orientation, margin or range asked for is dropped and another one drawn; so
   is one that copies a training mask, where these are known (:mod:`stdiff.masks.copies`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from stdiff.birads.curve import closed_curve, rasterised, rounded, stretched
from stdiff.birads.lexicon import Findings
from stdiff.birads.query import Where
from stdiff.birads.shape import (
    Shape,
    count_lesions,
    measure_lesion,
    separate,
    touches_border,
)
from stdiff.masks.copies import KnownLesions
from stdiff.masks.feasible import (
    AREA,
    CENTRE,
    ELONGATION,
    can_be,
    check_ranges,
    reconciled,
    set_right,
)
from stdiff.masks.findings import nearest_entries, probabilities, with_terms
from stdiff.masks.placement import cut_off, moved_inside
from stdiff.masks.prior import FEATURES, SHARP_MARGINS, Entry, Prior, at_probability
from stdiff.masks.roughness import random_curvature, with_margin
from stdiff.masks.sampling import SampledMask, as_mask
from stdiff.runtime.files import InputError

# Drawn at a time; from these, those that can have the orientation and ranges asked for are tried.
_BATCH = 32
_OUTLINES_PER_ENTRY, _ENTRIES = 100, 16
_PLACES = 20
# Of a lesion's area, after rasterising and cutting.
_LEAST_LEFT = 0.5
_ROUGHNESS = slice(5, len(FEATURES))


class CurvatureSource:
    """Draws new masks that a collection with this prior could have held.

    Raises:
        InputError: ranges outside of all the prior knows.
    """

    def __init__(
        self,
        prior: Prior,
        height_px: int,
        width_px: int,
        where: Where | None = None,
        balance: Mapping[str, float] | None = None,
        known: KnownLesions | None = None,
    ) -> None:
        """Choose the prior's entries that meet the conditions, or come nearest.

        Outlines that are near-copies of ``known`` lesions are dropped.
        """
        self.known = known
        self.prior, self.height_px, self.width_px = prior, height_px, width_px
        self.where = where or Where()
        check_ranges(prior, self.where)
        numbers, _ = nearest_entries([entry.findings for entry in prior.findings], self.where)
        self.entries = [prior.findings[number] for number in numbers]
        findings = [entry.findings for entry in self.entries]
        masks = [entry.masks for entry in self.entries]
        self.likely = probabilities(findings, masks, balance or {})

    def sample(self, rng: np.random.Generator) -> SampledMask:
        """One mask; its findings' shape, orientation and margin are those measured on it.

        Raises:
            InputError: no outline met the conditions; the message tells the nearest one.
        """
        nearest: tuple[int, str] | None = None
        for _ in range(_ENTRIES):
            entry = self.entries[rng.choice(len(self.entries), p=self.likely)]
            findings = reconciled(with_terms(entry.findings, self.where, rng), self.where)
            classes = _margin_classes(findings, entry)
            for lesion_HW, problems in self._outlines(findings, classes, rng):
                if lesion_HW is not None and not problems:
                    return SampledMask(as_mask(lesion_HW), findings, "curvature")
                if problems and (nearest is None or len(problems) < nearest[0]):
                    nearest = len(problems), "; ".join(problems)
        found = f"; the nearest had {nearest[1]}: ask for that" if nearest else ""
        raise InputError(
            f"no mask of {_ENTRIES * _OUTLINES_PER_ENTRY} had all that was asked for{found}, or "
            "leave a condition away"
        )

    def _outlines(
        self, findings: Findings, classes: tuple[str, ...], rng: np.random.Generator
    ) -> Iterator[tuple[np.ndarray | None, list[str]]]:
        """(mask or None, what is wrong with it) of one try after another."""
        count = self._lesion_count(rng)
        side = self._cut_side(rng)
        margin = next((name for name in classes if name in SHARP_MARGINS), "")
        path = [findings.pathology, findings.shape, findings.orientation]
        group = self.prior.group([*path, "circumscribed" if margin else classes[0]])
        likely = self._likely_features(group, findings, rng)
        for _ in range(_OUTLINES_PER_ENTRY):
            lesion_HW = self._lesion(next(likely), margin, side, rng)
            if lesion_HW is None:
                yield None, []
                continue
            shape = measure_lesion(separate(lesion_HW)[0])
            problems = _unlike(shape, findings, classes) + self.where.violations(shape, count)
            if not problems and self.known and self.known.has_copy(lesion_HW):
                yield None, []
                continue
            if not problems and count > 1:
                lesion_HW = self._with_others(lesion_HW, count, likely, rng)
            yield lesion_HW, problems

    def _lesion_count(self, rng: np.random.Generator) -> int:
        numbers, shares = zip(*self.prior.lesions.shares.items(), strict=True)
        low, high = self.where.ranges.get("lesion_count", (1, np.inf))
        drawn = rng.choice(numbers, p=np.array(shares) / sum(shares))
        return int(np.clip(drawn, np.ceil(low), high))

    def _likely_features(
        self, group: str, findings: Findings, rng: np.random.Generator
    ) -> Iterator[np.ndarray]:
        """Features that can have the axes and ranges asked for; these set right if none has."""
        while True:
            drawn = self.prior.draw(group, _BATCH, rng)
            fitting = drawn[can_be(drawn, findings, self.where)]
            yield from fitting if len(fitting) else set_right(drawn, findings, self.where, rng)

    def _lesion(
        self, features: np.ndarray, margin: str, side: str | None, rng: np.random.Generator
    ) -> np.ndarray | None:
        """One lesion within the image, or cut by one side of it; None if it cannot be had."""
        curvature = random_curvature(features[_ROUGHNESS], rng)
        curve = closed_curve(with_margin(curvature, margin, rng))
        if curve is None:
            return None
        size_px = np.array([self.width_px, self.height_px])
        curve = stretched(
            rounded(curve),
            features[AREA] * self.width_px * self.height_px,
            tuple(features[ELONGATION]),
            complex(*(features[CENTRE] * size_px)),
        )
        curve = self._placed(curve, side, rng)
        lesion_HW = rasterised(curve, self.height_px, self.width_px)
        if lesion_HW is None or lesion_HW.all() or touches_border(lesion_HW) != (side is not None):
            return None
        # A curve all but folded onto itself leaves fragments, or next to nothing.
        is_whole = np.count_nonzero(lesion_HW) > _LEAST_LEFT * features[AREA] * lesion_HW.size
        return lesion_HW if is_whole and count_lesions(lesion_HW) == 1 else None

    def _placed(self, curve: np.ndarray, side: str | None, rng: np.random.Generator) -> np.ndarray:
        """The curve moved into the image, or across one of its sides."""
        curve = moved_inside(curve, self.height_px, self.width_px)
        if side is None:
            return curve
        contact = at_probability(self.prior.border.contact_fraction, rng.random())
        return cut_off(curve, side, float(contact), self.height_px, self.width_px)

    def _cut_side(self, rng: np.random.Generator) -> str | None:
        border = self.prior.border
        if rng.random() >= border.rate:
            return None
        shares = np.array(list(border.sides.values()))
        # No mask of the fitted ones touched any side: none is likelier than the next.
        likely = shares / shares.sum() if shares.any() else None
        return str(rng.choice(list(border.sides), p=likely))

    def _with_others(
        self,
        largest_HW: np.ndarray,
        count: int,
        likely: Iterator[np.ndarray],
        rng: np.random.Generator,
    ) -> np.ndarray | None:
        """The mask with further lesions, apart from each other; None if they find no place."""
        share = np.count_nonzero(largest_HW) / largest_HW.size
        mask_HW = largest_HW
        for number in range(2, count + 1):
            ratio = at_probability(self.prior.lesions.area_ratio, rng.random())
            for _ in range(_PLACES):
                features = next(likely).copy()
                features[AREA] = share * ratio
                features[CENTRE] = rng.uniform(0.1, 0.9, 2)
                other_HW = self._lesion(features, "", None, rng)
                if other_HW is None or other_HW.sum() >= largest_HW.sum():
                    continue
                if count_lesions(mask_HW | other_HW) == number:
                    mask_HW = mask_HW | other_HW
                    break
            else:
                return None
        return mask_HW


def _margin_classes(findings: Findings, entry: Entry) -> tuple[str, ...]:
    """Margin classes of an outline that agrees with the findings, the one to draw first."""
    if findings.margin == entry.findings.margin:
        return (entry.margin_class,)
    if sharp := tuple(name for name in SHARP_MARGINS if name in findings.margin):
        return sharp
    if "circumscribed" in findings.margin:
        return ("circumscribed",)
    # An indistinct margin is not in the mask, but a sharp feature would belie it.
    return ("unclear", "circumscribed")


def _unlike(shape: Shape, findings: Findings, classes: tuple[str, ...]) -> list[str]:
    """Terms of the findings that the mask does not have, in words."""
    problems = []
    for name in ("shape", "orientation"):
        asked, found = getattr(findings, name), getattr(shape, name)
        if asked and asked != found:
            problems.append(f"{name} {found!r} instead of {asked!r}")
    if (found := shape.margin or "unclear") not in classes:
        problems.append(f"margin {found!r} instead of {' or '.join(map(repr, classes))}")
    return problems
