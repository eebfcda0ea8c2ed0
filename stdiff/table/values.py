"""Values of a case-table row that no step may rely on."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from stdiff.birads.shape import count_lesions
from stdiff.runtime.images import decode_png
from stdiff.table.case_ids import case_id_problem
from stdiff.table.spreadsheet import is_formula

# Flag of a mask whose number of lesions changed when it was brought to the stored size.
LESIONS_MERGED = "lesions_merged"
# Ultrasound is sampled at 0.02 to 0.5 mm; no frame is 10 mm a pixel.
_MOST_MM = 10
_NUMBERS = ("measures", "transform")


def value_problems(row: dict[str, Any]) -> Iterator[str]:
    """Why values of a row cannot be right, apart from its pixels and BI-RADS terms.

    Args:
        row: as :func:`stdiff.table.cases.read_rows` gives it.
    """
    if problem := case_id_problem(row["case_id"]):
        yield problem
    for name in ("pixel_spacing_mm", "pixel_spacing_y_mm"):
        spacing_mm = row[name]
        if spacing_mm is not None and not 0 < spacing_mm < _MOST_MM:
            yield f"{name} is {spacing_mm:g}; expected millimetres, e.g. 0.08, or null"
    for column in _NUMBERS:
        for name, number in (row[column] or {}).items():
            if number is not None and not math.isfinite(number):
                yield f"{column}.{name} is {number}; expected a finite number or null"
    for name, value in row.items():
        texts = value if isinstance(value, list) else [value]
        if formulas := [t for t in texts if isinstance(t, str) and is_formula(t)]:
            yield f"{name} {formulas[0]!r} is a formula in a spreadsheet; write it in words"
    if problem := _lesion_count_problem(row):
        yield problem


def _lesion_count_problem(row: dict[str, Any]) -> str | None:
    stated = row["lesion_count"]
    if stated is None:
        return None
    if row["mask"] is None:
        return f"lesion_count is {stated}, but there is no mask to count on; expected null"
    try:
        found = count_lesions(decode_png(row["mask"]["bytes"]) > 0)
    except (OSError, SyntaxError, ValueError, TypeError):
        return None  # a problem of the pixels
    merged = LESIONS_MERGED in (row["flags"] or ()) and min(stated, found) > 0
    if stated == found or merged:
        return None
    return f"lesion_count is {stated}, but the mask shows {found}; correct one of them"
