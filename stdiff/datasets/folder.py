"""A user's own folder: images, masks with the same stems, and optional metadata.

Either ``images/`` with ``masks/`` (or ``masks/0/``, as CMU-Net and MGCC have it) and an optional
``metadata.csv``, or the first ST-Diff layout, ``labeled/{images,masks,texts}/`` beside
``unlabeled/images/``, where ``texts/<stem>.txt`` holds a caption in lexicon terms. Other usual
names of folders and masks are known to :mod:`stdiff.datasets.folder_layout`. Image and mask may be
of different formats. A mask of another size than its image shows the whole frame.

``metadata.csv`` (or the one CSV file there is, whatever its name) has the column ``stem`` and any
of ``patient_id``, ``pixel_spacing_mm``, ``device``, ``histology`` and the lexicon's columns
(several margins joined by ``&``). An image with ``pathology`` normal is known to be free of
lesions.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from functools import partial
from pathlib import Path

from stdiff.birads.lexicon import VOCABULARY, Findings, parse
from stdiff.datasets.cells import decimal, term_of, text_of
from stdiff.datasets.csv_tables import EXTRA_CELLS, read_rows, refuse_extra_cells
from stdiff.datasets.dicom import DicomTags, groups_of, is_dicom, read_tags
from stdiff.datasets.folder_layout import (
    Part,
    masks_among,
    masks_of_images,
    parts_of,
    refuse_two_masks,
)
from stdiff.datasets.raw import (
    IMAGE_SUFFIXES,
    Problem,
    RawCase,
    Reading,
    cases_or_problems,
    files_in,
    problems_of,
    refuse_repeats,
    relative,
)
from stdiff.runtime.files import InputError, is_clutter
from stdiff.runtime.names import composed, escaped

COLLECTION = "folder"
METADATA = "metadata.csv"
COLUMNS = ("stem", "patient_id", "pixel_spacing_mm", "device", "histology", *VOCABULARY)


def read(raw: Path) -> Reading:
    """Cases ``folder/<stem>``; an image without a mask is unlabelled unless it is normal.

    Raises:
        InputError: neither layout, a stem twice, a metadata column that is not known.
    """
    root = Path(raw)
    parts = parts_of(root)
    metadata, rows = _metadata(root)
    rows = _with_zeros(rows, {_stem_of(p) for part in parts for p in files_in(part.images)})
    cases: list[RawCase] = []
    problems: list[Problem] = []
    for part in parts:
        found, bad = _read_part(root, part, rows)
        cases += found
        problems += bad
    refuse_repeats((case.case_id for case in cases), f"{root}: image stem")
    groups = groups_of([case.image_path for case in cases if is_dicom(case.image_path)])
    cases = [
        replace(case, group=f"{COLLECTION}/of-{groups[case.image_path]}")
        if case.image_path in groups
        else case
        for case in cases
    ]
    return cases, problems + [
        Problem(metadata, f"names {stem!r}, but no image has this stem") for stem in sorted(rows)
    ]


def places(raw: Path) -> list[Path]:
    """Files and folders that :func:`read` reads."""
    folders = [f for part in parts_of(raw) for f in (part.images, *part.masks, part.texts)]
    return [*_tables(raw), *folders]


def _metadata(root: Path) -> tuple[str, dict[str, dict[str, str]]]:
    """The metadata file's name, and its rows by stem."""
    tables = _tables(root)
    if len(tables) > 1:
        tables = [path for path in tables if path.name == METADATA]
        if not tables:
            raise InputError(f"{root}: several CSV files; call the one to be read {METADATA}")
    if not tables:
        return METADATA, {}
    path = tables[0]
    rows = read_rows(path, ("stem",), key="stem", optional=COLUMNS)
    unknown = [name for name in (rows[0] if rows else ()) if name not in (*COLUMNS, EXTRA_CELLS)]
    if unknown:
        raise InputError(
            f"{path}: column(s) {', '.join(unknown)} are not known; rename them to one "
            f"of {', '.join(COLUMNS)}, or take them out"
        )
    by_stem = {_stem(row["stem"]): row for row in rows}
    if len(by_stem) < len(rows):
        refuse_repeats((_stem(row["stem"]) for row in rows), f"{path}: column stem")
    return escaped(path.name), by_stem


def _tables(root: Path) -> list[Path]:
    return [path for path in files_in(root) if path.suffix.lower() == ".csv"]


def _stem(name: str) -> str:
    """'x' of 'x.png'; other dots belong to the stem."""
    path = Path(name)
    return path.stem if path.suffix.lower() in IMAGE_SUFFIXES else name


def _stem_of(path: Path) -> str:
    return composed(path.stem)


def _with_zeros(rows: dict[str, dict[str, str]], stems: set[str]) -> dict[str, dict[str, str]]:
    """Rows by image stem, where spreadsheets have made '0' or '0.0' of '000'.

    A stem that no image has is taken for the only image and row of that number.
    """
    images, lacking = defaultdict(list), defaultdict(list)
    for stem in stems - set(rows):
        if stem.isdecimal():
            images[int(stem)].append(stem)
    for stem in set(rows) - stems:
        if (number := text_of(stem)).isdecimal():
            lacking[int(number)].append(stem)
    meant = {
        found[0]: images[number][0]
        for number, found in lacking.items()
        if len(found) == len(images[number]) == 1
    }
    return {meant.get(stem, stem): row for stem, row in rows.items()}


def _read_part(root: Path, part: Part, rows: dict[str, dict[str, str]]) -> Reading:
    """Cases of one ``images/`` folder; removes the rows that they use from ``rows``."""
    images, problems = _by_stem(root, IMAGE_SUFFIXES, part.images)
    masks, bad_masks = _by_stem(root, IMAGE_SUFFIXES, *part.masks)
    texts, bad_texts = _by_stem(root, (".txt",), part.texts)
    beside = {stem: images.pop(stem) for stem in masks_among(images)}
    of_image, unpaired = masks_of_images(images, masks | beside)
    attempts = []
    for stem, path in images.items():
        mask_paths = tuple(of_image.get(stem, ()))
        make = partial(_case, root, path, mask_paths, texts.pop(stem, None), rows.pop(stem, {}))
        attempts.append((relative(path, root), make))
    cases, refused = cases_or_problems(attempts)
    reason = "no image of the same stem; expected equal stems, e.g. images/x.png and {}"
    return cases, [
        *(*part.problems, *problems, *bad_masks, *bad_texts, *refused),
        *problems_of(unpaired, root, reason.format("masks/x.png or masks/x_mask.png")),
        *problems_of(texts.values(), root, reason.format("texts/x.txt")),
    ]


def _by_stem(
    root: Path, suffixes: tuple[str, ...], *folders: Path
) -> tuple[dict[str, Path], list[Problem]]:
    """Files of the existing folders by stem, and a problem for each other entry."""
    existing = [folder for folder in folders if folder.is_dir()]
    paths = [path for folder in existing for path in files_in(folder)]
    fitting = [path for path in paths if path.suffix.lower() in suffixes]
    for folder in existing[:1]:
        refuse_repeats(map(_stem_of, fitting), f"{relative(folder, root)}: file stem")
    other_types = [path for path in paths if path not in set(fitting)]
    subfolders = [
        path
        for folder in existing
        for path in sorted(folder.iterdir())
        if path.is_dir() and path not in (*folders, *paths) and not is_clutter(path)
    ]
    problems = problems_of(other_types, root, f"expected a file of type {', '.join(suffixes)}")
    problems += problems_of(
        subfolders, root, "a folder that is not read: only the files beside it are"
    )
    return {_stem_of(path): path for path in fitting}, problems


def _case(
    root: Path, path: Path, mask_paths: tuple[Path, ...], text: Path | None, row: dict[str, str]
) -> RawCase:
    refuse_two_masks(root, mask_paths)
    refuse_extra_cells(row, METADATA)
    values = {name: row.get(name) or None for name in COLUMNS}
    margin = (m.strip() for m in (values.pop("margin") or "").split("&"))
    terms = {
        name: term_of(name, value) or value
        for name in VOCABULARY
        if name != "margin" and (value := values[name])
    }
    findings = Findings(**terms, margin=tuple(term_of("margin", m) or m for m in margin if m))
    if text is not None:
        if findings != Findings():
            raise InputError(f"described both in {METADATA} and in {text.name}; keep one")
        try:
            findings = parse(text.read_text(encoding="utf-8-sig"))
        except UnicodeDecodeError as error:
            raise InputError(f"{text.name} is not UTF-8 text ({error.reason})") from error
    tags = read_tags(path) if is_dicom(path) else DicomTags()
    by_number = bool(row) and _stem(row["stem"]) != _stem_of(path)
    return RawCase(
        case_id=f"{COLLECTION}/{_stem_of(path)}",
        root=root,
        image_path=path,
        mask_paths=mask_paths,
        lesion_free=findings.pathology == "normal",
        findings=findings,
        histology=values["histology"],
        patient_id=values["patient_id"],
        pixel_spacing_mm=_spacing(values["pixel_spacing_mm"]) or tags.pixel_spacing_mm,
        mask_may_be_scaled=True,
        device=values["device"] or tags.device,
        flags=(*tags.flags, *(["metadata_by_number"] if by_number else [])),
    )


def _spacing(value: str | None) -> float | None:
    if value is None:
        return None
    spacing = decimal(value)
    if not 0 < spacing < 10:
        raise InputError(f"{METADATA}: pixel_spacing_mm {value!r}; expected millimetres, e.g. 0.08")
    return spacing
