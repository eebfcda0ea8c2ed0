"""Augmented masks from a bank of real ones: the labelled training masks an arm may use.

A drawn mask is flipped left to right, scaled, shifted, mildly deformed, and rotated as far as its
orientation term (relative to the skin, at the top) allows.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd

from stdiff.birads.lexicon import Findings, render
from stdiff.birads.query import Query
from stdiff.birads.shape import count_lesions, measure
from stdiff.masks.copies import KnownLesions
from stdiff.masks.findings import balanced_probabilities, best_matches
from stdiff.masks.sampling import (
    SampledMask,
    as_mask,
    elastic_displacement,
    equivalent_diameter_px,
    resample,
)
from stdiff.runtime.files import InputError
from stdiff.runtime.images import decode_png

SCALE = (0.85, 1.15)
# Of the side of the image. Small, because depth has a meaning (skin above, muscle below).
SHIFT_FRACTION = 0.1
# In units of the lesion's equivalent diameter.
ELASTIC_AMPLITUDE = 0.04
ELASTIC_SMOOTHNESS = 0.25
ROTATION_DEG = 10.0
_TRIES = 8
_MASKS_TRIED = 500
_MAX_LISTED = 10


@dataclass(frozen=True)
class BankMask:
    """One real mask, as PNG: thousands of decoded masks would fill the memory."""

    case_id: str
    png: bytes
    findings: Findings


class MaskBank:
    """Real lesion masks of one size with their findings, sorted by case_id.

    Raises:
        InputError: no rows, or masks that are missing, undecodable, without a lesion, all lesion,
            of values other than 0 and 255, or of different sizes; all of them are named.
    """

    def __init__(self, cases: pd.DataFrame) -> None:
        """``cases``: rows of a case table with ``case_id``, ``mask`` and findings."""
        if not len(cases):
            raise InputError("the mask bank is empty: no labelled training case with a lesion mask")
        rows = sorted(cases.to_dict("records"), key=lambda row: row["case_id"])
        self.height_px, self.width_px = _check_rows(rows)
        self.masks = [
            BankMask(row["case_id"], row["mask"]["bytes"], Findings.from_row(row)) for row in rows
        ]

    def __len__(self) -> int:
        return len(self.masks)

    def pixels(self) -> np.ndarray:
        """(N, height, width) uint8 masks, 0 or 255, sorted by case_id."""
        return np.stack([decode_png(mask.png) for mask in self.masks])

    def known_lesions(self) -> KnownLesions:
        """The lesions that new masks must not copy."""
        return KnownLesions(self.pixels())


@dataclass(frozen=True)
class Change:
    """How a mask of the bank was changed; written to ``mask_origin`` of the new mask."""

    flip: bool
    rotate_deg: float = 0.0
    scale: float = 1.0
    shift_x_px: float = 0.0
    shift_y_px: float = 0.0
    elastic: float = 0.0

    def __str__(self) -> str:
        fields = asdict(self).items()
        return ";".join(f"{name}={float(value):.4g}" for name, value in fields if value)


class BankSource:
    """Draws masks of a bank that match a query, augmented.

    Raises:
        InputError: no mask of the bank has the terms of the query; the message names the nearest.
    """

    def __init__(
        self, bank: MaskBank, query: Query | None = None, balance: Mapping[str, float] | None = None
    ) -> None:
        """Choose the bank's masks that have the terms of the query."""
        self.query = query or Query()
        findings = [mask.findings for mask in bank.masks]
        numbers = best_matches(findings, self.query)
        if not self.query.matches(findings[numbers[0]]):
            terms = ", ".join(f"{c}={'|'.join(terms)}" for c, terms in self.query.terms.items())
            raise InputError(
                f"none of the {len(bank)} masks of the bank has all terms of the query ({terms}); "
                f"the nearest, {len(numbers)} of them, are like {render(findings[numbers[0]])!r}: "
                "change the query, or use curvature masks, which need no such mask"
            )
        self.masks = [bank.masks[number] for number in numbers]
        findings = [mask.findings for mask in self.masks]
        self.probabilities = balanced_probabilities(findings, [1.0] * len(findings), balance or {})

    def sample(self, rng: np.random.Generator) -> SampledMask:
        """An augmented mask with the findings of its origin.

        ``mask_origin`` names origin and change, e.g. ``bank:busi/benign-0001;flip=1;scale=1.05``.

        Raises:
            InputError: no mask was in the ranges of the query.
        """
        nearest: list[str] = []
        for _ in range(_MASKS_TRIED if self.query.ranges else 1):
            origin = self.masks[rng.choice(len(self.masks), p=self.probabilities)]
            mask_HW, change = augment(as_mask(decode_png(origin.png) > 0), rng)
            problems = (
                self.query.range_violations(measure(mask_HW), count_lesions(mask_HW))
                if self.query.ranges
                else []
            )
            if not problems:
                changed = f";{change}" if str(change) else ""
                return SampledMask(mask_HW, origin.findings, f"bank:{origin.case_id}{changed}")
            if not nearest or len(problems) < len(nearest):
                nearest = problems
        raise InputError(
            f"none of {_MASKS_TRIED} masks drawn from the bank is in the ranges of the query; the "
            f"nearest had {'; '.join(nearest)}; change the query accordingly, or leave out a range"
        )


def augment(mask_HW: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, Change]:
    """(a 0/255 mask flipped, rotated, scaled, shifted and deformed; the change).

    Orientation and number of lesions are kept; if several attempts fail, the mask is only flipped.
    """
    flip = bool(rng.random() < 0.5)
    if flip:
        mask_HW = np.ascontiguousarray(mask_HW[:, ::-1])
    orientation, lesions = measure(mask_HW).orientation, count_lesions(mask_HW)
    area_px = np.count_nonzero(mask_HW)
    for _ in range(_TRIES):
        candidate_HW, change = _deform(mask_HW, flip, rng)
        # Rounding changes the area by less than a factor of two; lost parts by more.
        growth = np.count_nonzero(candidate_HW) / (area_px * change.scale**2)
        if (
            0.5 < growth < 2
            and not candidate_HW.all()
            and count_lesions(candidate_HW) == lesions
            and measure(candidate_HW).orientation == orientation
        ):
            return candidate_HW, change
    return mask_HW, Change(flip)


def _deform(mask_HW: np.ndarray, flip: bool, rng: np.random.Generator) -> tuple[np.ndarray, Change]:
    """A random rotated, scaled, shifted and elastically deformed copy."""
    diameter_px = equivalent_diameter_px(mask_HW)
    scale, shifts_px, centres = rng.uniform(*SCALE), [], []
    is_cut = False
    for axis, indices in enumerate(np.nonzero(mask_HW)):
        low, high, side_px = indices.min(), indices.max(), mask_HW.shape[axis]
        is_cut |= low == 0 or high == side_px - 1
        centres.append((low + high) / 2)
        shifts_px.append(_draw_shift(low, high, scale, side_px, rng))
    # The cut of a lesion must stay along the border.
    angle_deg = 0.0 if is_cut else rng.uniform(-ROTATION_DEG, ROTATION_DEG)
    cos, sin = np.cos(np.radians(angle_deg)), np.sin(np.radians(angle_deg))
    y, x = (
        index - centre - shift
        for index, centre, shift in zip(
            np.indices(mask_HW.shape, dtype=np.float64), centres, shifts_px, strict=True
        )
    )
    source_2HW = np.stack([cos * y - sin * x, sin * y + cos * x]) / scale
    source_2HW += np.reshape(centres, (2, 1, 1))
    source_2HW += elastic_displacement(
        mask_HW.shape, ELASTIC_AMPLITUDE * diameter_px, ELASTIC_SMOOTHNESS * diameter_px, rng
    )
    change = Change(flip, angle_deg, scale, shifts_px[1], shifts_px[0], ELASTIC_AMPLITUDE)
    return resample(mask_HW, source_2HW), change


def _draw_shift(low: int, high: int, scale: float, side_px: int, rng: np.random.Generator) -> float:
    """A random shift along one axis that keeps the scaled span [low, high] within the image."""
    if low == 0 or high == side_px - 1:
        # Cut by the border: moved inwards, the straight cut would become part of the outline.
        return 0.0
    half = scale * (high - low) / 2
    to_start, to_end = half - (low + high) / 2, side_px - 1 - half - (low + high) / 2
    reach = SHIFT_FRACTION * side_px
    bounds = np.clip((-reach, reach), min(to_start, to_end), max(to_start, to_end))
    return float(rng.uniform(*bounds))


def _check_rows(rows: list[dict[str, Any]]) -> tuple[int, int]:
    """(height, width) of all masks; an InputError names every mask that cannot be used."""
    masks = {row["case_id"]: _decode(row["mask"]) for row in rows}
    sizes = Counter(mask.shape for mask in masks.values() if mask is not None)
    usual = sizes.most_common(1)[0][0] if sizes else (0, 0)
    problems = [
        f"{case_id}: {problem}"
        for case_id, mask in masks.items()
        for problem in _mask_problems(mask, usual)
    ]
    if len(masks) < len(rows):
        problems.append(f"{len(rows) - len(masks)} case_id(s) occur more than once")
    if problems:
        listed = [f"- {problem}" for problem in problems[:_MAX_LISTED]]
        if len(problems) > _MAX_LISTED:
            listed.append(f"- and {len(problems) - _MAX_LISTED} more")
        raise InputError(
            f"{len(problems)} problems in {len(rows)} masks; correct them or remove the cases from "
            "the case table:\n" + "\n".join(listed)
        )
    return usual


def _decode(cell: dict[str, Any] | None) -> np.ndarray | None:
    try:
        return decode_png(cell["bytes"])
    except (TypeError, OSError, SyntaxError, ValueError):
        return None


def _mask_problems(mask_HW: np.ndarray | None, usual: tuple[int, int]) -> Iterator[str]:
    if mask_HW is None:
        yield "mask is missing or cannot be decoded"
        return
    if mask_HW.shape != usual:
        yield f"mask is {mask_HW.shape}, the others are {usual}; harmonize them to one size"
    if not np.isin(mask_HW, (0, 255)).all():
        yield "mask holds values other than 0 and 255"
    if not mask_HW.any():
        yield "mask holds no lesion"
    elif mask_HW.all():
        yield "mask is lesion all over"
