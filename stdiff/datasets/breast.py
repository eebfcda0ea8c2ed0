"""BrEaST: 256 images with lexicon descriptors, one per patient, 252 with the lesion's mask.

Pawłowska et al. 2024, Sci. Data, TCIA doi 10.7937/9WKK-Q141. Layout: ``case001.png``,
``case001_tumor.png`` and, for structures that are not the lesion, ``case001_other1.png`` in
``BrEaST-Lesions_USG-images_and_masks/``; beside or inside that folder the clinical data,
``BrEaST-Lesions-USG-clinical-data-Dec-15-2023.xlsx``. Four cases are normal and have no mask.
"""

from __future__ import annotations

import re
from contextlib import closing
from functools import partial
from pathlib import Path

import openpyxl

from stdiff.birads.lexicon import BIRADS, ECHO_PATTERNS, MARGINS, PATHOLOGIES, SHAPES, Findings
from stdiff.datasets.cells import decimal, value_of
from stdiff.datasets.csv_tables import known_names, refuse_missing_columns
from stdiff.datasets.raw import (
    Problem,
    RawCase,
    Reading,
    cases_or_problems,
    files_in,
    folders_by_depth,
    given_folder,
    listed,
    problems_of,
    refuse_repeats,
    relative,
    unknown_term,
    unreadable_metadata,
)
from stdiff.runtime.files import InputError
from stdiff.runtime.names import composed

COLLECTION = "breast"
FOLDER = "BrEaST-Lesions_USG-images_and_masks"
_WORKBOOK = "BrEaST-Lesions-USG-clinical-data*.xlsx"
_COLUMNS = (
    *("CaseID", "Image_filename", "Mask_tumor_filename", "Mask_other_filename", "Pixel_size"),
    *("Shape", "Margin", "Echogenicity", "Posterior_features", "Calcifications"),
    *("BIRADS", "Diagnosis", "Classification"),
)
_MM_A_CM = 10

# Column of the sheet → column of the case table and its term for each value in small letters.
# None: a known value without a lexicon term. Values not listed here are flagged, never guessed.
TERMS: dict[str, tuple[str, dict[str, str | None]]] = {
    "Classification": ("pathology", {term: term for term in PATHOLOGIES}),
    "BIRADS": ("birads", {category.lower(): category for category in BIRADS}),
    "Shape": ("shape", {term: term for term in SHAPES}),
    "Echogenicity": (
        "echo_pattern",
        {term: term for term in ECHO_PATTERNS}
        | {"complex cystic/solid": "complex cystic and solid"},
    ),
    "Posterior_features": (
        "posterior_features",
        {
            "no": "no posterior features",
            "enhancement": "enhancement",
            "shadowing": "shadowing",
            "combined": "combined pattern",
        },
    ),
    "Calcifications": (
        "calcifications",
        {"no": "none", "in a mass": "in a mass", "intraductal": "intraductal", "indefinable": None},
    ),
}


def read(raw: Path) -> Reading:
    """Cases such as ``breast/case001``, and rows or files that cannot be paired or read.

    Raises:
        InputError: no folder or several with the images, no workbook or several, a workbook that
            cannot be read or lacks a column, a CaseID twice.
    """
    root, workbook = places(raw)
    files = {composed(path.name).lower(): path for path in files_in(root) if path != workbook}
    rows = _rows(workbook)
    refuse_repeats((_case_number(row) for row in rows), f"{workbook.name}: column CaseID")
    missing_masks: list[Problem] = []
    cases, problems = cases_or_problems(
        (
            row["Image_filename"] or f"{workbook.name}, CaseID {row['CaseID']}",
            partial(_case, row, root, files, missing_masks),
        )
        for row in rows
    )
    unnamed = problems_of(files.values(), root, f"not named in {workbook.name}")
    return cases, problems + missing_masks + unnamed


def places(raw: Path) -> list[Path]:
    """The folder of images and the workbook."""
    raw = given_folder(raw, FOLDER)
    return [_image_folder(raw), _workbook(raw)]


def _image_folder(raw: Path) -> Path:
    for level in folders_by_depth(raw):
        fitting = [folder for folder in level if any(map(_is_image, folder.iterdir()))]
        if len(fitting) > 1:
            several = ", ".join(relative(path, raw) for path in fitting)
            raise InputError(f"{raw}: several folders hold case*.png: {several}; give one of them")
        if fitting:
            return fitting[0]
    raise InputError(
        f"{raw}: expected {FOLDER}/ with case001.png ..., or these files; found {listed(raw)}"
    )


def _is_image(path: Path) -> bool:
    return bool(re.fullmatch(r"case\d.*\.png", path.name, re.IGNORECASE))


def _workbook(raw: Path) -> Path:
    inside = [path for level in folders_by_depth(raw) for f in level for path in f.glob(_WORKBOOK)]
    # Given the images' own folder, the workbook may lie beside it.
    found = sorted(inside or raw.resolve().parent.glob(_WORKBOOK))
    if not found:
        raise InputError(
            f"{raw}: no clinical data; expected one file {_WORKBOOK} beside the images; "
            f"found {listed(raw)}"
        )
    if len(found) > 1:
        raise InputError(
            f"{raw}: {len(found)} files of clinical data: "
            f"{', '.join(path.name for path in found)}; keep one"
        )
    return found[0]


def _rows(workbook: Path) -> list[dict[str, str]]:
    """Rows of the first sheet that has all columns, cells as text; blank rows left out."""
    try:
        with closing(openpyxl.load_workbook(workbook, read_only=True, data_only=True)) as book:
            sheets = []
            for sheet in book.worksheets:
                # Some writers state a wrong range, which would hide cells.
                sheet.reset_dimensions()
                cells = [
                    [value_of(cell) for cell in row] for row in sheet.iter_rows(values_only=True)
                ]
                sheets.append([row for row in cells if any(row)])
    except Exception as error:  # openpyxl lets any error of its zip and XML parsers through
        raise InputError(f"{workbook}: not a readable Excel file ({error})") from error
    if not any(sheets):
        raise InputError(f"{workbook}: no sheet with cells; expected {', '.join(_COLUMNS)}")
    # 'Pixel_size (cm)' is 'Pixel_size'.
    headers = [
        known_names([name.partition(" (")[0] for name in (rows or [[]])[0]], _COLUMNS)
        for rows in sheets
    ]
    best = max(range(len(sheets)), key=lambda i: len(set(_COLUMNS) & set(headers[i])))
    refuse_missing_columns(headers[best], _COLUMNS, str(workbook))
    return [
        {name: "" for name in _COLUMNS} | dict(zip(headers[best], row, strict=False))
        for row in sheets[best][1:]
    ]


def _case_number(row: dict[str, str]) -> str:
    """'1' of CaseID 1, '001' or 'case001'; the cell itself where it holds no number."""
    number = re.fullmatch(r"(?:case)?0*(\d+)", row["CaseID"], re.IGNORECASE)
    return number[1] if number else row["CaseID"]


def _case(
    row: dict[str, str], root: Path, files: dict[str, Path], problems: list[Problem]
) -> RawCase:
    """The case of a row; removes the files that it names from ``files``.

    A missing mask of another structure is added to ``problems``; the case is still made.
    """
    image_path = _taken(row["Image_filename"], files) if row["Image_filename"] else None
    lesions = {name: _taken(name, files) for name in _names(row["Mask_tumor_filename"])}
    others = {name: _taken(name, files) for name in _names(row["Mask_other_filename"])}
    problems += [
        Problem(name, "mask of another structure, named in the clinical data, is missing")
        for name, path in others.items()
        if path is None
    ]
    number = _case_number(row)
    if not number.isdigit():
        raise InputError(f"CaseID {row['CaseID']!r}; expected a number, e.g. 1")
    if image_path is None:
        raise InputError("named in the clinical data, but the image is missing")
    missing = [name for name, path in lesions.items() if path is None]
    if missing:
        raise InputError(f"its mask {', '.join(missing)} is missing")
    findings, flags = _findings(row)
    lesion_free = findings.pathology == "normal"
    if not lesions and not lesion_free:
        raise InputError("no Mask_tumor_filename, though the case is not classified as normal")
    spacing_mm, spacing_flags = _spacing_mm(row["Pixel_size"])
    histology = "; ".join(part.strip() for part in row["Diagnosis"].split("&")) or None
    return RawCase(
        case_id=f"{COLLECTION}/case{int(number):03d}",
        root=root,
        image_path=image_path,
        mask_paths=tuple(path for path in lesions.values() if path),
        lesion_free=lesion_free,
        findings=findings,
        histology=histology,
        patient_id=number,
        pixel_spacing_mm=spacing_mm,
        flags=(*flags, *spacing_flags, *(("other_structures",) if others else ())),
    )


def _names(cell: str) -> list[str]:
    """File names of a cell such as 'case005_other1.png&case005_other2.png'."""
    return [name.strip() for name in cell.split("&") if name.strip()]


def _taken(name: str, files: dict[str, Path]) -> Path | None:
    """The file of that name, with or without its suffix, taken out of ``files``."""
    key = composed(name).lower()
    return files.pop(key, None) or files.pop(f"{key}.png", None)


def _findings(row: dict[str, str]) -> tuple[Findings, list[str]]:
    """Findings of a row, and flags for values not understood."""
    terms: dict[str, str | None] = {}
    flags = []
    for column, (name, values) in TERMS.items():
        value = row[column].lower()
        if value in values:
            terms[name] = values[value]
        elif value:
            flags.append(unknown_term(column, row[column]))
    margin = _margin(row["Margin"].lower())
    if margin is None:
        flags.append(unknown_term("Margin", row["Margin"]))
    return Findings(**terms, margin=margin or ()), flags


def _margin(value: str) -> tuple[str, ...] | None:
    """Margins of 'circumscribed' or 'not circumscribed - angular&indistinct'; None if unknown."""
    if value in ("", "not circumscribed"):
        return ()
    if value == "circumscribed":
        return (value,)
    described = re.fullmatch(r"not circumscribed ?[-–] ?(.+)", value)
    parts = [part.strip() for part in described[1].split("&")] if described else []
    known = parts and all(part in MARGINS and part != "circumscribed" for part in parts)
    return tuple(parts) if known else None


def _spacing_mm(value: str) -> tuple[float | None, list[str]]:
    """Millimetres of a pixel from the sheet's centimetres."""
    if not value:
        return None, []
    spacing_cm = decimal(value)
    if not 0 < spacing_cm < 1:
        return None, [unreadable_metadata("Pixel_size", value)]
    return spacing_cm * _MM_A_CM, []
