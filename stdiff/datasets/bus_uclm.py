"""BUS-UCLM: 683 images of 38 patients; the mask's colour is the class.

Vallez et al. 2025, Sci. Data 12:242. Layout: ``images/ALWI_000.png``, ``masks/ALWI_000.png`` and
``INFO.csv`` in a folder of any name. The letters before ``_`` are the patient.
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

COLLECTION = "bus_uclm"
FOLDER = "BUS-UCLM"
_INFO = "INFO.csv"
_COLUMNS = ("Image", "Resolution", "Label", "Doppler", "Marks", "Combined")
_NAME = re.compile(r"([A-Za-z]+)_\d+")
_MASK_COLOURS = {(0, 0, 0): None, (0, 255, 0): "benign", (255, 0, 0): "malignant"}
_YES, _NO = ("yes", "y"), ("no", "n")
# Four frames occur under both names (CHCO_000 = CHVI_005, CHCO_001 = CHVI_008,
# CHCO_002 = CHVI_009, CHCO_003 = CHVI_013), so both are one patient.
_ONE_PATIENT = {"CHCO": "CHCO+CHVI", "CHVI": "CHCO+CHVI"}


def read(raw: Path) -> Reading:
    """Cases such as ``bus_uclm/ALWI_000``, and rows or files that cannot be paired or read.

    Raises:
        InputError: missing or otherwise laid out folder, CSV without a column, an image twice.
    """
    *folders, table = places(raw)
    return read_paired(table, _COLUMNS, folders, _names, _case)


def places(raw: Path) -> list[Path]:
    """The folders of images and masks, and the table."""
    return paths_in_collection(raw, FOLDER, ("images", "masks", _INFO))


def _names(image: str) -> tuple[str, str]:
    return (f"{_stem(image)}.png",) * 2


def _stem(image: str) -> str:
    return re.sub(r"\.png$", "", image, flags=re.IGNORECASE)


def _case(
    row: dict[str, str], root: Path, image_path: Path | None, mask_path: Path | None
) -> RawCase:
    refuse_extra_cells(row, _INFO)
    stem = _stem(row["Image"])
    name = _NAME.fullmatch(stem)
    if not name:
        raise InputError(f"{_INFO}: Image {row['Image']!r}; expected e.g. ALWI_000")
    if image_path is None:
        raise InputError(f"named in {_INFO}, but the image is missing")
    findings = Findings(pathology=term_of("pathology", row["Label"]))
    lesion_free = findings.pathology == "normal"
    if mask_path is None and not lesion_free:
        raise InputError("its mask is missing from masks/")
    size_px, flags = _size_px(row["Resolution"])
    if findings.pathology is None:
        flags.append(unknown_term("Label", row["Label"]))
    for column in ("Doppler", "Marks", "Combined"):
        if row[column].lower() in _YES:
            flags.append(column.lower())
        elif row[column].lower() not in _NO:
            flags.append(unknown_term(column, row[column]))
    patient = name[1].upper()
    return RawCase(
        case_id=f"{COLLECTION}/{stem}",
        root=root,
        image_path=image_path,
        mask_paths=(mask_path,) if mask_path else (),
        lesion_free=lesion_free,
        findings=findings,
        patient_id=_ONE_PATIENT.get(patient, patient),
        stated_size_px=size_px,
        mask_colours=_MASK_COLOURS,
        flags=tuple(flags),
    )


def _size_px(resolution: str) -> tuple[tuple[int, int] | None, list[str]]:
    """(height, width) of '856x606', which is width x height."""
    stated = re.fullmatch(r"(\d+) ?[xX×] ?(\d+)", resolution)
    if stated:
        return (int(stated[2]), int(stated[1])), []
    return None, [unreadable_metadata("Resolution", resolution)]
