"""BUS-BRA: 1875 images of 1064 patients with BI-RADS, pathology and histology.

Gómez-Flores et al. 2024, Med. Phys. 51:3110. Layout: ``BUSBRA/Images/bus_0001-l.png``,
``BUSBRA/Masks/mask_0001-l.png``, ``BUSBRA/bus_data.csv``. The published inner validation folds
cut patients in two, so they are not read: splits are drawn anew by patient (``Case``).
"""

from __future__ import annotations

import json
import re
from pathlib import Path

from stdiff.datasets.raw import (
    Problem,
    RawCase,
    Reading,
    collection_root,
    files_in,
    read_rows,
    relative,
)
from stdiff.files import InputError
from stdiff.lexicon import Findings

COLLECTION = "bus_bra"
FOLDER = "BUSBRA"
_COLUMNS = ("ID", "Case", "Histology", "Pathology", "BIRADS", "Width", "Height", "BBOX")
_ID = re.compile(r"bus_\d+-[a-z]+")


def read(raw: Path) -> Reading:
    """Cases such as ``bus_bra/bus_0001-l``, and rows or files that cannot be paired or read.

    Raises:
        InputError: missing or otherwise laid out folder, CSV without a column, an ID twice.
    """
    root = collection_root(raw, FOLDER, ("Images", "Masks", "bus_data.csv"))
    images = {path.stem: path for path in files_in(root / "Images")}
    masks = {path.stem: path for path in files_in(root / "Masks")}
    cases: list[RawCase] = []
    problems: list[Problem] = []
    for row in read_rows(root / "bus_data.csv", _COLUMNS, key="ID"):
        image_path = images.pop(row["ID"], None)
        mask_path = masks.pop(row["ID"].replace("bus_", "mask_", 1), None)
        try:
            cases.append(_case(row, root, image_path, mask_path))
        except InputError as error:
            problems.append(Problem(f"Images/{row['ID']}.png", str(error)))
    problems += [
        Problem(relative(path, root), "not named in bus_data.csv")
        for path in [*images.values(), *masks.values()]
    ]
    return cases, problems


def _case(
    row: dict[str, str], root: Path, image_path: Path | None, mask_path: Path | None
) -> RawCase:
    if not _ID.fullmatch(row["ID"]):
        raise InputError(f"bus_data.csv: ID {row['ID']!r}; expected e.g. bus_0001-l")
    if image_path is None:
        raise InputError("named in bus_data.csv, but the image is missing")
    if mask_path is None:
        raise InputError("its mask is missing from Masks/")
    if not row["Case"].strip():
        raise InputError("bus_data.csv: Case (the patient) is empty: it cannot be split safely")
    known = {
        "pathology": row["Pathology"].strip().lower(),
        "birads": row["BIRADS"].strip(),
        "histology": row["Histology"].strip(),
    }
    known = {column: value for column, value in known.items() if value}
    histology = known.pop("histology", None)
    return RawCase(
        case_id=f"{COLLECTION}/{row['ID']}",
        collection=COLLECTION,
        root=root,
        image_path=image_path,
        mask_paths=(mask_path,),
        findings=Findings(**known),
        annotated=(*known, *(("histology",) if histology else ())),
        histology=histology,
        patient_id=row["Case"].strip(),
        stated_size_px=(_number(row, "Height"), _number(row, "Width")),
        stated_box_px=_box(row),
    )


def _number(row: dict[str, str], column: str) -> int:
    try:
        return int(row[column])
    except ValueError:
        raise InputError(
            f"bus_data.csv: {column} {row[column]!r}; expected a whole number"
        ) from None


def _box(row: dict[str, str]) -> tuple[int, int, int, int]:
    """0-based inclusive corners of the 1-based ``[x, y, x_max - x, y_max - y]``."""
    try:
        x, y, width, height = (int(value) for value in json.loads(row["BBOX"]))
    except (ValueError, TypeError):
        raise InputError(f"bus_data.csv: BBOX {row['BBOX']!r}; expected '[x,y,w,h]'") from None
    return x - 1, y - 1, x - 1 + width, y - 1 + height
