"""Masks drawn from a bank of real ones, augmented.

The bank holds the labelled training masks an arm may see. A drawn mask is flipped left to right,
scaled, shifted, mildly deformed, and rotated no farther than its orientation allows: the beam comes
from above, and the orientation term refers to the skin.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd

from stdiff.birads.lexicon import Findings, render
from stdiff.birads.query import Where
from stdiff.birads.shape import count_lesions, measure
from stdiff.masks.copies import KnownLesions
from stdiff.masks.findings import nearest_entries, probabilities
from stdiff.masks.sampling import (
    SampledMask,
    as_mask,
    elastic_displacement,
    equivalent_diameter_px,
    resample,
)
from stdiff.runtime.files import InputError, decode_png

SCALE = (0.85, 1.15)
# Depth carries meaning (skin above, muscle below), so a lesion does not wander far.
SHIFT_FRACTION = 0.1
# In units of the lesion's equivalent diameter, so that small lesions are deformed alike.
ELASTIC_AMPLITUDE = 0.04
ELASTIC_SMOOTHNESS = 0.25
ROTATION_DEG = 10.0
_TRIES = 8
_MASKS_TRIED = 500
_LISTED = 10


@dataclass(frozen=True)
class BankMask:
    """One real mask; kept as PNG, for thousands of them decoded would fill memory."""

    case_id: str
    png: bytes
    findings: Findings


class MaskBank:
    """Real lesion masks of one size with their findings.

    The order of the table does not matter: masks are kept sorted by case_id.

    Raises:
        InputError: no rows, or masks that are missing, cannot be decoded, hold no lesion, are
            all lesion, hold other values than 0 and 255, or differ in size; all of them named.
    """

    def __init__(self, cases: pd.DataFrame) -> None:
        """Check and keep the masks of case-table rows (``case_id``, ``mask``, findings)."""
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
        """What new masks should not be copies of."""
        return KnownLesions(self.pixels())


@dataclass(frozen=True)
class Change:
    """How a mask of the bank was changed; all fields are kept in the origin of the new mask."""

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
    """Draws masks of a bank that meet the conditions, augmented.

    Raises:
        InputError: no mask of the bank has the terms asked for; the message tells the nearest.
    """

    def __init__(
        self, bank: MaskBank, where: Where | None = None, balance: Mapping[str, float] | None = None
    ) -> None:
        """Choose the bank's masks that have the terms asked for."""
        self.where = where or Where()
        findings = [mask.findings for mask in bank.masks]
        numbers, met = nearest_entries(findings, self.where)
        if met < len(self.where.terms):
            near = render(findings[numbers[0]])
            raise InputError(
                f"none of the {len(bank)} masks of the bank has all terms asked for "
                f"({_asked(self.where)}); the nearest, {len(numbers)} of them, are like {near!r}: "
                "ask for these, or take curvature masks, which can have terms that are not there"
            )
        self.masks = [bank.masks[number] for number in numbers]
        findings = [mask.findings for mask in self.masks]
        self.likely = probabilities(findings, [1.0] * len(findings), balance or {})

    def sample(self, rng: np.random.Generator) -> SampledMask:
        """An augmented mask with the findings of its origin.

        The measured orientation and the number of lesions are those of the origin; if several
        tries fail to keep them, only the flip is applied. Origin and change stand in
        ``mask_origin``, e.g. ``bank:busi/benign-0001;flip=1;scale=1.05``.

        Raises:
            InputError: no mask met the ranges asked for.
        """
        nearest: list[str] = []
        for _ in range(_MASKS_TRIED if self.where.ranges else 1):
            origin = self.masks[rng.choice(len(self.masks), p=self.likely)]
            mask_HW, change = augment(as_mask(decode_png(origin.png) > 0), rng)
            problems: list[str] = []
            if self.where.ranges:
                problems = self.where.violations(measure(mask_HW), count_lesions(mask_HW))
            if not problems:
                changed = f";{change}" if str(change) else ""
                return SampledMask(mask_HW, origin.findings, f"bank:{origin.case_id}{changed}")
            if not nearest or len(problems) < len(nearest):
                nearest = problems
        raise InputError(
            f"no mask of {_MASKS_TRIED} drawn from the bank was in the ranges asked for: the "
            f"nearest had {'; '.join(nearest)}; ask for that, or leave a range away"
        )


def augment(mask_HW: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, Change]:
    """(a 0/255 mask flipped, turned, scaled, shifted and deformed, what was done to it).

    Orientation and number of lesions stay; the mask is flipped only if no try keeps them.
    """
    flip = bool(rng.random() < 0.5)
    if flip:
        mask_HW = np.ascontiguousarray(mask_HW[:, ::-1])
    orientation, lesions = measure(mask_HW).orientation, count_lesions(mask_HW)
    area_px = np.count_nonzero(mask_HW)
    for _ in range(_TRIES):
        candidate_HW, change = _deform(mask_HW, flip, rng)
        # Within a factor of two: smaller scaling errors are rounding, larger ones are lost parts.
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
    """One random turned, scaled, shifted and elastically deformed copy."""
    diameter_px = equivalent_diameter_px(mask_HW)
    scale, shifts_px, centres = rng.uniform(*SCALE), [], []
    is_cut = False
    for axis, indices in enumerate(np.nonzero(mask_HW)):
        low, high, side_px = indices.min(), indices.max(), mask_HW.shape[axis]
        is_cut |= low == 0 or high == side_px - 1
        centres.append((low + high) / 2)
        shifts_px.append(_draw_shift(low, high, scale, side_px, rng))
    # A cut side must stay along the border.
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
    """A shift along one axis that leaves the scaled span [low, high] within the image."""
    if low == 0 or high == side_px - 1:
        # Cut by the image's border: moved inwards, the straight cut would become an outline.
        return 0.0
    half = scale * (high - low) / 2
    to_start, to_end = half - (low + high) / 2, side_px - 1 - half - (low + high) / 2
    reach = SHIFT_FRACTION * side_px
    bounds = np.clip((-reach, reach), min(to_start, to_end), max(to_start, to_end))
    return float(rng.uniform(*bounds))


def _check_rows(rows: list[dict[str, Any]]) -> tuple[int, int]:
    """The one (height, width) of all masks."""
    masks = {row["case_id"]: _decode(row["mask"]) for row in rows}
    sizes = Counter(mask.shape for mask in masks.values() if mask is not None)
    usual = sizes.most_common(1)[0][0] if sizes else (0, 0)
    problems = [
        f"{case_id}: {problem}"
        for case_id, mask in masks.items()
        for problem in _mask_problems(mask, usual)
    ]
    if len(masks) < len(rows):
        problems.append(f"{len(rows) - len(masks)} case_id(s) stand more than once")
    if problems:
        listed = "\n".join(f"- {problem}" for problem in problems[:_LISTED])
        more = f"\n- and {len(problems) - _LISTED} more" if len(problems) > _LISTED else ""
        raise InputError(
            f"{len(problems)} of {len(rows)} masks cannot be in a mask bank; mend them or take "
            f"them out of the case table:\n{listed}{more}"
        )
    return usual


def _asked(where: Where) -> str:
    return ", ".join(f"{column}={'|'.join(terms)}" for column, terms in where.terms.items())


def _decode(cell: dict[str, Any] | None) -> np.ndarray | None:
    try:
        return decode_png(cell["bytes"])
    except (TypeError, OSError, SyntaxError, ValueError):
        return None


def _mask_problems(mask_HW: np.ndarray | None, usual: tuple[int, int]) -> Iterator[str]:
    if mask_HW is None:
        yield "no mask that can be decoded"
        return
    if mask_HW.shape != usual:
        yield f"mask is {mask_HW.shape}, the others are {usual}; harmonize them to one size"
    if not np.isin(mask_HW, (0, 255)).all():
        yield "mask holds values other than 0 and 255"
    if not mask_HW.any():
        yield "mask holds no lesion"
    elif mask_HW.all():
        yield "mask is lesion all over"
