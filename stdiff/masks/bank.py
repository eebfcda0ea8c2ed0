"""Masks drawn from a bank of real ones, augmented.

The bank holds the labelled training masks an arm may see. A drawn mask is flipped left to right,
scaled, shifted and mildly deformed; never rotated, for the beam comes from above and the
orientation term refers to the skin.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from stdiff.files import InputError, decode_png
from stdiff.lexicon import Findings
from stdiff.masks.sampling import (
    SampledMask,
    as_mask,
    elastic_displacement,
    equivalent_diameter_px,
    resample,
)
from stdiff.masks.shape import count_lesions, measure

SCALE = (0.85, 1.15)
# Depth carries meaning (skin above, muscle below), so a lesion does not wander far.
SHIFT_FRACTION = 0.1
# In units of the lesion's equivalent diameter, so that small lesions are deformed alike.
ELASTIC_AMPLITUDE = 0.04
ELASTIC_SMOOTHNESS = 0.25
_TRIES = 8
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

    def draw(self, rng: np.random.Generator) -> BankMask:
        """One of the masks, each as likely as the next."""
        return self.masks[rng.integers(len(self.masks))]

    def sample(self, rng: np.random.Generator) -> SampledMask:
        """An augmented mask with the findings of its origin.

        The measured orientation and the number of lesions are those of the origin; if several
        tries fail to keep them, only the flip is applied.
        """
        origin = self.draw(rng)
        mask_HW = as_mask(decode_png(origin.png) > 0)
        if rng.random() < 0.5:
            mask_HW = np.ascontiguousarray(mask_HW[:, ::-1])
        return SampledMask(augment(mask_HW, rng), origin.findings, f"bank:{origin.case_id}")


def augment(mask_HW: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Scale, shift and deform a 0/255 mask, keeping orientation and number of lesions.

    Returns the mask unchanged if no try keeps them.
    """
    orientation, lesions = measure(mask_HW).orientation, count_lesions(mask_HW)
    area_px = np.count_nonzero(mask_HW)
    for _ in range(_TRIES):
        scale = rng.uniform(*SCALE)
        candidate_HW = _deform(mask_HW, scale, rng)
        # Within a factor of two: smaller scaling errors are rounding, larger ones are lost parts.
        growth = np.count_nonzero(candidate_HW) / (area_px * scale**2)
        if (
            0.5 < growth < 2
            and not candidate_HW.all()
            and count_lesions(candidate_HW) == lesions
            and measure(candidate_HW).orientation == orientation
        ):
            return candidate_HW
    return mask_HW


def _deform(mask_HW: np.ndarray, scale: float, rng: np.random.Generator) -> np.ndarray:
    """One random scaled, shifted and elastically deformed copy."""
    diameter_px = equivalent_diameter_px(mask_HW)
    source_2HW = np.indices(mask_HW.shape, dtype=np.float64)
    for axis, indices in enumerate(np.nonzero(mask_HW)):
        low, high, side_px = indices.min(), indices.max(), mask_HW.shape[axis]
        centre = (low + high) / 2
        shift_px = _draw_shift(low, high, scale, side_px, rng)
        source_2HW[axis] = (source_2HW[axis] - centre - shift_px) / scale + centre
    source_2HW += elastic_displacement(
        mask_HW.shape, ELASTIC_AMPLITUDE * diameter_px, ELASTIC_SMOOTHNESS * diameter_px, rng
    )
    return resample(mask_HW, source_2HW)


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
