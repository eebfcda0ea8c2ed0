"""New lesion outlines, built from their curvature along the arc and drawn from the clinical prior.

1. Findings that occur together are drawn; then area, axes, centre and roughness given these terms
   (:mod:`stdiff.masks.prior`).
2. κ(s)/2π = 1 + Σ c_k e^{2πiks} with random phases and the drawn roughness in each band of orders,
   plus the corners, waves or spikes of the margin (:mod:`stdiff.masks.roughness`).
3. Its integral, the tangent angle, is integrated to a closed curve (:mod:`stdiff.birads.curve`),
   which is stretched to the drawn axes and area, moved to the drawn centre, and rasterised.
4. The mask is measured (:mod:`stdiff.birads.shape`). It is rejected and drawn again if the outline
   crosses itself, does not match findings or query, or copies a training mask
   (:mod:`stdiff.masks.copies`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from stdiff.birads.curve import closed_curve, rasterised, with_area_and_axes, with_equal_axes
from stdiff.birads.lexicon import Findings
from stdiff.birads.query import Query
from stdiff.birads.shape import (
    Shape,
    count_lesions,
    largest_lesion,
    measure_lesion,
    touches_border,
)
from stdiff.masks.copies import KnownLesions
from stdiff.masks.feasible import check_ranges, forced_features, is_feasible
from stdiff.masks.findings import (
    balanced_probabilities,
    best_matches,
    with_query_terms,
    without_contradictions,
)
from stdiff.masks.placement import cut_off, moved_inside
from stdiff.masks.prior import (
    AREA,
    CENTRE,
    ELONGATION,
    ROUGHNESS_COLUMNS,
    SHARP_MARGINS,
    Entry,
    Prior,
    interpolate_quantiles,
)
from stdiff.masks.roughness import random_curvature, with_margin
from stdiff.masks.sampling import SampledMask, as_mask
from stdiff.runtime.files import InputError

# Features drawn at a time, of which the feasible ones are tried.
_BATCH = 32
_OUTLINES_PER_ENTRY, _ENTRIES = 100, 16
_PLACES = 20
# Minimum part of the drawn area that is left after rasterising and cutting.
_MIN_AREA_LEFT = 0.5


class CurvatureSource:
    """Draws new masks from a prior.

    Raises:
        InputError: a range of the query has no overlap with the prior.
    """

    def __init__(
        self,
        prior: Prior,
        height_px: int,
        width_px: int,
        query: Query | None = None,
        balance: Mapping[str, float] | None = None,
        known: KnownLesions | None = None,
    ) -> None:
        """Choose the prior's entries that match the query best; reject copies of ``known``."""
        self.known = known
        self.prior, self.height_px, self.width_px = prior, height_px, width_px
        self.query = query or Query()
        check_ranges(prior, self.query)
        numbers = best_matches([entry.findings for entry in prior.findings], self.query)
        self.entries = [prior.findings[number] for number in numbers]
        findings = [entry.findings for entry in self.entries]
        masks = [entry.masks for entry in self.entries]
        self.probabilities = balanced_probabilities(findings, masks, balance or {})

    def sample(self, rng: np.random.Generator) -> SampledMask:
        """One mask; shape, orientation and margin of its findings are those measured on it.

        Raises:
            InputError: no outline matched the query; the message names the nearest one.
        """
        nearest: tuple[int, str] | None = None
        for _ in range(_ENTRIES):
            entry = self.entries[rng.choice(len(self.entries), p=self.probabilities)]
            findings = with_query_terms(entry.findings, self.query, rng)
            findings = without_contradictions(findings, self.query)
            classes = _margin_classes(findings, entry)
            for lesion_HW, problems in self._outlines(findings, classes, rng):
                if lesion_HW is not None and not problems:
                    return SampledMask(as_mask(lesion_HW), findings, "curvature")
                if problems and (nearest is None or len(problems) < nearest[0]):
                    nearest = len(problems), "; ".join(problems)
        found = f"; the nearest had {nearest[1]}" if nearest else ""
        raise InputError(
            f"none of {_ENTRIES * _OUTLINES_PER_ENTRY} masks matched the query{found}; change the "
            "query accordingly, or leave out a part of it"
        )

    def _outlines(
        self, findings: Findings, classes: tuple[str, ...], rng: np.random.Generator
    ) -> Iterator[tuple[np.ndarray | None, list[str]]]:
        """(mask or None if it failed, mismatches of the mask) for one attempt after another."""
        count = self._lesion_count(rng)
        side = self._cut_side(rng)
        margin = next((name for name in classes if name in SHARP_MARGINS), "")
        path = [findings.pathology, findings.shape, findings.orientation]
        group = self.prior.group([*path, "circumscribed" if margin else classes[0]])
        candidates = self._candidate_features(group, findings, rng)
        for _ in range(_OUTLINES_PER_ENTRY):
            lesion_HW = self._lesion(next(candidates), margin, side, rng)
            if lesion_HW is None:
                yield None, []
                continue
            shape = measure_lesion(largest_lesion(lesion_HW))
            problems = _mismatches(shape, findings, classes)
            problems += self.query.range_violations(shape, count)
            if not problems and self.known and self.known.has_copy(lesion_HW):
                yield None, []
                continue
            if not problems and count > 1:
                lesion_HW = self._with_others(lesion_HW, count, candidates, rng)
            yield lesion_HW, problems

    def _lesion_count(self, rng: np.random.Generator) -> int:
        numbers, shares = zip(*self.prior.lesions.shares.items(), strict=True)
        low, high = self.query.ranges.get("lesion_count", (1, np.inf))
        drawn = rng.choice(numbers, p=np.array(shares) / sum(shares))
        return int(np.clip(drawn, np.ceil(low), high))

    def _candidate_features(
        self, group: str, findings: Findings, rng: np.random.Generator
    ) -> Iterator[np.ndarray]:
        """Feasible features; forced ones if none of a batch is feasible."""
        while True:
            drawn = self.prior.draw(group, _BATCH, rng)
            kept = drawn[is_feasible(drawn, findings, self.query)]
            yield from kept if len(kept) else forced_features(drawn, findings, self.query, rng)

    def _lesion(
        self, features: np.ndarray, margin: str, side: str | None, rng: np.random.Generator
    ) -> np.ndarray | None:
        """One lesion within the image, or cut by one side of it; None for a failed outline."""
        curvature = random_curvature(features[ROUGHNESS_COLUMNS], rng)
        curve = closed_curve(with_margin(curvature, margin, rng))
        if curve is None:
            return None
        size_px = np.array([self.width_px, self.height_px])
        curve = with_area_and_axes(
            with_equal_axes(curve),
            features[AREA] * self.width_px * self.height_px,
            tuple(features[ELONGATION]),
            complex(*(features[CENTRE] * size_px)),
        )
        curve = moved_inside(curve, self.height_px, self.width_px)
        if side is not None:
            contact = interpolate_quantiles(self.prior.border.contact_fraction, rng.random())
            curve = cut_off(curve, side, float(contact), self.height_px, self.width_px)
        lesion_HW = rasterised(curve, self.height_px, self.width_px)
        if lesion_HW is None or lesion_HW.all() or touches_border(lesion_HW) != (side is not None):
            return None
        # A curve nearly folded onto itself leaves fragments, or almost nothing.
        min_area_px = _MIN_AREA_LEFT * features[AREA] * lesion_HW.size
        is_large = np.count_nonzero(lesion_HW) > min_area_px
        return lesion_HW if is_large and count_lesions(lesion_HW) == 1 else None

    def _cut_side(self, rng: np.random.Generator) -> str | None:
        border = self.prior.border
        if rng.random() >= border.rate:
            return None
        shares = np.array(list(border.sides.values()))
        # If no fitted mask touched a side, all sides are equally likely.
        probabilities = shares / shares.sum() if shares.any() else None
        return str(rng.choice(list(border.sides), p=probabilities))

    def _with_others(
        self,
        largest_HW: np.ndarray,
        count: int,
        candidates: Iterator[np.ndarray],
        rng: np.random.Generator,
    ) -> np.ndarray | None:
        """The mask with further lesions that do not touch; None if there is no place for them."""
        share = np.count_nonzero(largest_HW) / largest_HW.size
        mask_HW = largest_HW
        for number in range(2, count + 1):
            ratio = interpolate_quantiles(self.prior.lesions.area_ratio, rng.random())
            for _ in range(_PLACES):
                features = next(candidates).copy()
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
    """Margin classes of an outline that agree with the findings; the first is the one drawn."""
    if findings.margin == entry.findings.margin:
        return (entry.margin_class,)
    if sharp := tuple(name for name in SHARP_MARGINS if name in findings.margin):
        return sharp
    if "circumscribed" in findings.margin:
        return ("circumscribed",)
    # A mask does not show an indistinct margin, but a sharp margin would contradict it.
    return ("unclear", "circumscribed")


def _mismatches(shape: Shape, findings: Findings, classes: tuple[str, ...]) -> list[str]:
    """Terms of the findings that the mask does not have, each with the term that it has."""
    problems = []
    for name in ("shape", "orientation"):
        wanted, found = getattr(findings, name), getattr(shape, name)
        if wanted and wanted != found:
            problems.append(f"{name} {found!r} instead of {wanted!r}")
    if (found := shape.margin or "unclear") not in classes:
        problems.append(f"margin {found!r} instead of {' or '.join(map(repr, classes))}")
    return problems
