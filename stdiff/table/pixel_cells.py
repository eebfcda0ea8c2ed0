"""What a case table's cells of pixels must be: 8-bit grey PNGs of the row's size."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from stdiff.birads.implausible import frame_doubts
from stdiff.runtime.files import InputError
from stdiff.runtime.images import decode_png


def pixel_problems(row: dict[str, Any], column: str) -> Iterator[str]:
    """Problems of the cell ``image``, ``mask`` or ``background``; none of a null cell."""
    if row[column] is None:
        return
    try:
        levels_HW = decode_png(row[column]["bytes"] or b"", column, check_sums=True)
    except InputError as error:
        yield f"{column} cannot be decoded ({error})"
        return
    if levels_HW.shape != (row["height_px"], row["width_px"]):
        yield f"{column} is {levels_HW.shape}, the row says {(row['height_px'], row['width_px'])}"
    others = levels_HW[(levels_HW != 0) & (levels_HW != 255)]
    if column == "mask" and len(others):
        # Taken for grey levels, a mask of 0 and 1 would be empty.
        yield f"mask holds values other than 0 and 255, for example {others[0]}"


def mask_doubts_of(row: dict[str, Any]) -> Iterator[str]:
    """Why a row's mask, which has none of those problems, cannot be a lesion's."""
    if row["mask"] is not None:
        mask_HW = decode_png(row["mask"]["bytes"], "mask") > 0
        yield from (f"mask {doubt}" for doubt in frame_doubts(mask_HW))
