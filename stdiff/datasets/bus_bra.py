"""BUS-BRA: 1875 images of 1064 patients with BI-RADS, pathology and histology.

Gómez-Flores et al. 2024, Med. Phys. 51:3110. Layout: ``BUSBRA/Images/bus_0001-l.png``,
``BUSBRA/Masks/mask_0001-l.png``, ``BUSBRA/bus_data.csv``. The published inner validation folds
divide patients, so they are not read: splits are drawn by patient (``Case``).

A case needs image, mask and patient. Any other odd value is left out and flagged.
"""

from __future__ import annotations

import re
from pathlib import Path

from stdiff.birads.lexicon import Findings
from stdiff.datasets.cells import term_of
from stdiff.datasets.csv_tables import read_paired, refuse_extra_cells
from stdiff.datasets.raw import (
    RawCase,
    Reading,
    paths_in_collection,
    unknown_term,
    unreadable_metadata,
)
from stdiff.runtime.files import InputError

COLLECTION = "bus_bra"
FOLDER = "BUSBRA"
_TABLE = "bus_data.csv"
_COLUMNS = (
    *("ID", "Case", "Histology", "Pathology", "BIRADS"),
    *("Device", "Width", "Height", "Side", "BBOX"),
)
_ID = re.compile(r"bus_\d+-(?P<side>[a-z]+)")
_SIDES = {"l": "left", "r": "right", "s": "single"}
_NUMBER = r" *(\d+)(?:\.0*)? *"
_BOX = re.compile(rf"\[?{','.join([_NUMBER] * 4)}\]?")


def read(raw: Path) -> Reading:
    """Cases such as ``bus_bra/bus_0001-l``, and rows or files that cannot be paired or read.

    Raises:
        InputError: missing or otherwise laid out folder, CSV without a column, an ID twice.
    """
    *folders, table = places(raw)
    return read_paired(table, _COLUMNS, folders, _names, _case)


def places(raw: Path) -> list[Path]:
    """The folders of images and masks, and the table."""
    return paths_in_collection(raw, FOLDER, ("Images", "Masks", _TABLE))


def _names(key: str) -> tuple[str, str]:
    return f"{key}.png", f"{key.replace('bus_', 'mask_', 1)}.png"


def _case(
    row: dict[str, str], root: Path, image_path: Path | None, mask_path: Path | None
) -> RawCase:
    refuse_extra_cells(row, _TABLE)
    name = _ID.fullmatch(row["ID"])
    if not name:
        raise InputError(f"{_TABLE}: ID {row['ID']!r}; expected e.g. bus_0001-l")
    if image_path is None:
        raise InputError(f"named in {_TABLE}, but the image is missing")
    if mask_path is None:
        raise InputError("its mask is missing from Masks/")
    if not row["Case"]:
        raise InputError(f"{_TABLE}: Case (the patient) is empty: it cannot be split safely")
    flags: list[str] = []
    findings = Findings(
        pathology=_known("pathology", row, "Pathology", flags),
        birads=_known("birads", row, "BIRADS", flags),
    )
    if row["Side"].lower() not in ("", _SIDES.get(name["side"])):
        flags.append("side_mismatch")
    return RawCase(
        case_id=f"{COLLECTION}/{row['ID']}",
        root=root,
        image_path=image_path,
        mask_paths=(mask_path,),
        findings=findings,
        histology=row["Histology"] or None,
        patient_id=row["Case"],
        stated_size_px=_size_px(row, flags),
        stated_box_px=_box_px(row, flags),
        device=row["Device"] or None,
        flags=tuple(flags),
    )


def _known(name: str, row: dict[str, str], column: str, flags: list[str]) -> str | None:
    """The lexicon's term in a cell; else None, and a flag unless the cell is empty."""
    term = term_of(name, row[column])
    if row[column] and term is None:
        flags.append(unknown_term(column, row[column]))
    return term


def _size_px(row: dict[str, str], flags: list[str]) -> tuple[int, int] | None:
    """(height, width) in the row, or None and a flag."""
    odd = [name for name in ("Height", "Width") if not re.fullmatch(r"\d+", row[name])]
    flags += [unreadable_metadata(name, row[name]) for name in odd]
    return None if odd else (int(row["Height"]), int(row["Width"]))


def _box_px(row: dict[str, str], flags: list[str]) -> tuple[int, int, int, int] | None:
    """0-based inclusive corners of the 1-based ``[x, y, x_max - x, y_max - y]``."""
    box = _BOX.fullmatch(row["BBOX"])
    if not box:
        flags.append(unreadable_metadata("BBOX", row["BBOX"]))
        return None
    x, y, width, height = (int(value) for value in box.groups())
    return x - 1, y - 1, x - 1 + width, y - 1 + height
