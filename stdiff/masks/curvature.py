"""Lesion outlines built from their curvature along the arc, guided by the clinical prior.

1. Findings that occur together are drawn, then area, axes, centre and roughness given these terms
   (:mod:`stdiff.masks.prior`).
2. κ(s)/2π = 1 + Σ c_k e^{2πiks} with random phases and the drawn roughness in each band of orders,
   plus the events of the margin: corners, waves or spikes (:mod:`stdiff.masks.roughness`).
3. The tangent angle, its integral, is integrated to a curve and closed (:mod:`stdiff.masks.curve`).
   It is stretched to the drawn axes and area, moved to its centre, and rasterised.
4. What comes out is measured (:mod:`stdiff.masks.shape`). An outline that crosses itself or does
   not have the shape, orientation, margin or range asked for is dropped and another one drawn.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

import numpy as np

from stdiff.conditions import Where
from stdiff.files import InputError
from stdiff.lexicon import Findings
from stdiff.masks.curve import closed_curve, rasterised, rounded, stretched
from stdiff.masks.prior import FEATURES, Entry, Prior
from stdiff.masks.requests import nearest_entries, probabilities, with_terms
from stdiff.masks.roughness import random_curvature, with_margin
from stdiff.masks.sampling import SampledMask, as_mask
from stdiff.masks.shape import (
    ROUND_ABOVE_AXIS_RATIO,
    Shape,
    count_lesions,
    measure_lesion,
    separate,
)

ORIGIN = "curvature"
_SHARP = ("spiculated", "microlobulated", "angular")
# Drawn at a time; from these, those that can have the orientation and ranges asked for are tried.
_BATCH = 32
_OUTLINES_PER_ENTRY, _ENTRIES = 100, 16
_PLACES = 20
# Of a lesion's area, after rasterising and cutting.
_LEAST_LEFT = 0.5
_AREA, _ELONGATION, _CENTRE = 0, slice(1, 3), slice(3, 5)
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
    ) -> None:
        """Choose the prior's entries that meet the conditions, or come nearest."""
        self.prior, self.height_px, self.width_px = prior, height_px, width_px
        self.where = where or Where()
        _check_ranges(prior, self.where)
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
            findings = _reconciled(with_terms(entry.findings, self.where, rng), self.where)
            classes = _margin_classes(findings, entry)
            for lesion_HW, problems in self._outlines(findings, classes, rng):
                if lesion_HW is not None and not problems:
                    return SampledMask(as_mask(lesion_HW), findings, ORIGIN)
                if problems and (nearest is None or len(problems) < nearest[0]):
                    nearest = len(problems), "; ".join(problems)
        found = f"the nearest had {nearest[1]}" if nearest else "none could be drawn at all"
        raise InputError(
            f"no mask of {_ENTRIES * _OUTLINES_PER_ENTRY} had all that was asked for: {found}; "
            "ask for that, or leave a condition away"
        )

    def _outlines(
        self, findings: Findings, classes: tuple[str, ...], rng: np.random.Generator
    ) -> Iterator[tuple[np.ndarray | None, list[str]]]:
        """(mask or None, what is wrong with it) of one try after another."""
        shares = self.prior.lesions.shares
        count = int(
            rng.choice(list(shares), p=np.array(list(shares.values())) / sum(shares.values()))
        )
        low, high = self.where.ranges.get("lesion_count", (1, np.inf))
        count = int(np.clip(count, np.ceil(low), high))
        side = self._cut_side(rng)
        margin = next((name for name in classes if name in _SHARP), "")
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
            if not problems and count > 1:
                lesion_HW = self._with_others(lesion_HW, count, likely, rng)
            yield lesion_HW, problems

    def _likely_features(
        self, group: str, findings: Findings, rng: np.random.Generator
    ) -> Iterator[np.ndarray]:
        """Features that can have the axes and ranges asked for; these set right if none has."""
        while True:
            drawn = self.prior.draw(group, _BATCH, rng)
            fitting = drawn[_can_be(drawn, findings, self.where)]
            yield from fitting if len(fitting) else _set_right(drawn, findings, self.where, rng)

    def _lesion(
        self, features: np.ndarray, margin: str, side: str | None, rng: np.random.Generator
    ) -> np.ndarray | None:
        """One lesion within the image, or cut by one side of it; None if it cannot be had."""
        curvature = random_curvature(features[_ROUGHNESS], rng)
        curve = closed_curve(with_margin(curvature, margin, rng) if margin else curvature)
        if curve is None:
            return None
        size_px = np.array([self.width_px, self.height_px])
        curve = stretched(
            rounded(curve),
            features[_AREA] * self.width_px * self.height_px,
            tuple(features[_ELONGATION]),
            complex(*(features[_CENTRE] * size_px)),
        )
        curve = self._moved(curve, side, rng)
        lesion_HW = rasterised(curve, self.height_px, self.width_px)
        if lesion_HW is None or lesion_HW.all() or _touches(lesion_HW) != (side is not None):
            return None
        # A curve all but folded onto itself leaves fragments, or next to nothing.
        is_whole = np.count_nonzero(lesion_HW) > _LEAST_LEFT * features[_AREA] * lesion_HW.size
        return lesion_HW if is_whole and count_lesions(lesion_HW) == 1 else None

    def _moved(self, curve: np.ndarray, side: str | None, rng: np.random.Generator) -> np.ndarray:
        """The curve moved into the image, or across one of its sides.

        An ellipse of extent 1 that is cut off by d has a chord of 2 √(d (1 − d)); so much is cut
        as to give the contact drawn from the prior.
        """
        left, right = curve.real.min(), curve.real.max()
        top, bottom = curve.imag.min(), curve.imag.max()
        # A pixel away from the border, so that the lesion does not touch it.
        dx = _inside(left, right, self.width_px)
        dy = _inside(top, bottom, self.height_px)
        if side is not None:
            knots = self.prior.border.contact_fraction
            contact = np.interp(rng.random() * (len(knots) - 1), np.arange(len(knots)), knots)
            cut = (1 - np.sqrt(1 - min(contact, 1.0) ** 2)) / 2
            if side in ("left", "right"):
                cut_px = max(cut * (right - left), 1.0)
                dx = -left - cut_px if side == "left" else self.width_px - right + cut_px
            else:
                cut_px = max(cut * (bottom - top), 1.0)
                dy = -top - cut_px if side == "top" else self.height_px - bottom + cut_px
        return curve + complex(dx, dy)

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
        knots = self.prior.lesions.area_ratio
        share = np.count_nonzero(largest_HW) / largest_HW.size
        mask_HW = largest_HW
        for number in range(2, count + 1):
            ratio = np.interp(rng.random() * (len(knots) - 1), np.arange(len(knots)), knots)
            for _ in range(_PLACES):
                features = next(likely).copy()
                features[_AREA] = share * ratio
                features[_CENTRE] = rng.uniform(0.1, 0.9, 2)
                other_HW = self._lesion(features, "", None, rng)
                if other_HW is None or other_HW.sum() >= largest_HW.sum():
                    continue
                if count_lesions(mask_HW | other_HW) == number:
                    mask_HW = mask_HW | other_HW
                    break
            else:
                return None
        return mask_HW


def _reconciled(findings: Findings, where: Where) -> Findings:
    """The findings without a contradiction between what was asked and what was not.

    An outline with sharp features is irregular, so either term gives way to the other if only the
    other was asked for.
    """
    is_sharp, asks_shape = bool(set(_SHARP) & set(findings.margin)), "shape" in where.terms
    if is_sharp and not asks_shape and findings.shape:
        return replace(findings, shape="irregular")
    if is_sharp and "margin" not in where.terms and findings.shape in ("oval", "round"):
        return replace(findings, margin=("circumscribed",))
    return findings


def _margin_classes(findings: Findings, entry: Entry) -> tuple[str, ...]:
    """Margin classes of an outline that agrees with the findings, the one to draw first."""
    if findings.margin == entry.findings.margin:
        return (entry.margin_class,)
    if sharp := tuple(name for name in _SHARP if name in findings.margin):
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


def _axis_ratio(features: np.ndarray) -> np.ndarray:
    return np.exp(-np.hypot(features[:, 1], features[:, 2]))


def _can_be(features: np.ndarray, findings: Findings, where: Where) -> np.ndarray:
    """Which rows have the axes, area and centre asked for (the outline decides on the rest)."""
    fits = np.ones(len(features), dtype=bool)
    if findings.orientation:
        fits &= (features[:, 1] >= 0) == (findings.orientation == "parallel")
    if findings.shape == "round":
        fits &= _axis_ratio(features) > ROUND_ABOVE_AXIS_RATIO
    elif findings.shape == "oval":
        fits &= _axis_ratio(features) <= ROUND_ABOVE_AXIS_RATIO
    for name, (low, high) in where.ranges.items():
        if name in FEATURES:
            values = features[:, FEATURES.index(name)]
            fits &= (low <= values) & (values <= high)
    return fits


def _set_right(
    features: np.ndarray, findings: Findings, where: Where, rng: np.random.Generator
) -> np.ndarray:
    """Rows with what is asked written over what was drawn: it is rare, not impossible."""
    features = features.copy()
    if findings.orientation:
        sign = 1 if findings.orientation == "parallel" else -1
        features[:, 1] = sign * np.abs(features[:, 1])
    if findings.shape == "round":
        features[:, _ELONGATION] *= 0.1
    for name, (low, high) in where.ranges.items():
        if name in FEATURES:
            column = features[:, FEATURES.index(name)]
            column[:] = (
                rng.uniform(max(low, column.min()), min(high, column.max()), len(column))
                if (max(low, column.min()) <= min(high, column.max()))
                else np.clip(column, low, high)
            )
    return features


def _check_ranges(prior: Prior, where: Where) -> None:
    problems = []
    for name, (low, high) in where.ranges.items():
        if name not in FEATURES:
            continue
        least, most = prior.features[name][0], prior.features[name][-1]
        if high < least or low > most:
            nearest = f"{name}=..{most:g}" if low > most else f"{name}={least:g}.."
            problems.append(
                f"- {name}={low:g}..{high:g}: the prior's masks have {least:g} to {most:g}; "
                f"the nearest possible is {nearest}"
            )
    if problems:
        raise InputError("these masks cannot be had:\n" + "\n".join(problems))


def _inside(low: float, high: float, size_px: int) -> float:
    """Least shift of a span that leaves a pixel to both sides; none if it is too long."""
    if high - low > size_px - 2:
        return (size_px - low - high) / 2
    return max(0.0, 1 - low) - max(0.0, high - (size_px - 1))


def _touches(lesion_HW: np.ndarray) -> bool:
    edges = (lesion_HW[0], lesion_HW[-1], lesion_HW[:, 0], lesion_HW[:, -1])
    return any(edge.any() for edge in edges)
