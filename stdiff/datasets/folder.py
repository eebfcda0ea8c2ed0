"""A folder of one's own: images, masks with the same stems, and what is known about them.

Either ``images/`` with ``masks/`` (or ``masks/0/``, as CMU-Net and MGCC have it) and an optional
``metadata.csv``, or the first ST-Diff layout, ``labeled/{images,masks,texts}/`` beside
``unlabeled/images/``, where ``texts/<stem>.txt`` holds a caption in lexicon terms.

``metadata.csv`` has the column ``stem`` and any of ``patient_id``, ``pixel_spacing_mm``,
``histology`` and the lexicon's columns (several margins joined by ``&``). An image with
``pathology`` normal is known to be free of lesions.
"""

from __future__ import annotations

from pathlib import Path

from stdiff.datasets.raw import (
    Problem,
    RawCase,
    Reading,
    files_in,
    read_rows,
    refuse_repeats,
    relative,
)
from stdiff.files import InputError
from stdiff.lexicon import VOCABULARY, Findings, parse

COLLECTION = "folder"
METADATA = "metadata.csv"
COLUMNS = ("stem", "patient_id", "pixel_spacing_mm", "histology", *VOCABULARY)
_IMAGES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff")


def read(raw: Path) -> Reading:
    """Cases ``folder/<stem>``; an image without a mask is unlabelled unless it is normal.

    Raises:
        InputError: neither layout, a stem twice, a metadata column that is not known.
    """
    root = Path(raw)
    if not root.is_dir():
        raise InputError(f"{root}: no such folder; give the one that holds images/ or labeled/")
    parts = [root] if (root / "images").is_dir() else [root / "labeled", root / "unlabeled"]
    if not (parts[0] / "images").is_dir():
        found = ", ".join(sorted(path.name for path in root.iterdir())[:8]) or "nothing"
        raise InputError(
            f"{root}: expected images/ (with masks/), or labeled/images/; found {found}"
        )
    rows = _metadata(root)
    cases: list[RawCase] = []
    problems: list[Problem] = []
    for part in parts:
        found, bad = _read_part(root, part, rows)
        cases += found
        problems += bad
    refuse_repeats((case.case_id for case in cases), f"{root}: image stem")
    return cases, problems + [
        Problem(METADATA, f"names {stem!r}, but no image has this stem") for stem in sorted(rows)
    ]


def _metadata(root: Path) -> dict[str, dict[str, str]]:
    path = root / METADATA
    if not path.exists():
        return {}
    rows = read_rows(path, ("stem",), key="stem")
    unknown = [name for name in (rows[0] if rows else ()) if name not in COLUMNS]
    if unknown:
        raise InputError(
            f"{path}: column(s) {', '.join(map(str, unknown))} are not known; rename them to one "
            f"of {', '.join(COLUMNS)}, or take them out"
        )
    return {row["stem"]: row for row in rows}


def _read_part(root: Path, part: Path, rows: dict[str, dict[str, str]]) -> Reading:
    """Cases of one ``images/`` folder; the rows that they use are taken out of ``rows``."""
    cases: list[RawCase] = []
    problems: list[Problem] = []
    masks = _by_stem(root, part / "masks", part / "masks" / "0")
    texts = _by_stem(root, part / "texts")
    images = files_in(part / "images") if (part / "images").is_dir() else []
    for path in images:
        row = rows.pop(path.stem, {})
        mask_paths = (masks.pop(path.stem),) if path.stem in masks else ()
        text = texts.pop(path.stem, None)
        try:
            if path.suffix.lower() not in _IMAGES:
                raise InputError(f"expected an image ({', '.join(_IMAGES)})")
            cases.append(_case(root, path, mask_paths, text, row))
        except InputError as error:
            problems.append(Problem(relative(path, root), str(error)))
    problems += [
        Problem(relative(path, root), "no image of the same stem")
        for path in (*masks.values(), *texts.values())
    ]
    return cases, problems


def _by_stem(root: Path, *folders: Path) -> dict[str, Path]:
    paths = [path for folder in folders if folder.is_dir() for path in files_in(folder)]
    refuse_repeats((path.stem for path in paths), f"{relative(folders[0], root)}: file stem")
    return {path.stem: path for path in paths}


def _case(
    root: Path, path: Path, mask_paths: tuple[Path, ...], text: Path | None, row: dict[str, str]
) -> RawCase:
    values = {name: (row.get(name) or "").strip() or None for name in COLUMNS}
    margin = tuple(m.strip() for m in (values.pop("margin") or "").split("&") if m.strip())
    terms = {name: values[name] for name in VOCABULARY if name != "margin" and values[name]}
    findings = Findings(**terms, margin=margin)
    if text is not None:
        if findings != Findings():
            raise InputError(f"described both in {METADATA} and in {text.name}; keep one")
        try:
            findings = parse(text.read_text(encoding="utf-8"))
        except UnicodeDecodeError as error:
            raise InputError(f"{text.name} is not UTF-8 text ({error.reason})") from error
    columns = [name for name, term in findings.as_row().items() if term]
    return RawCase(
        case_id=f"{COLLECTION}/{path.stem}",
        collection=COLLECTION,
        root=root,
        image_path=path,
        mask_paths=mask_paths,
        lesion_free=findings.pathology == "normal",
        findings=findings,
        annotated=(*columns, *(("histology",) if values["histology"] else ())),
        histology=values["histology"],
        patient_id=values["patient_id"],
        pixel_spacing_mm=_spacing(values["pixel_spacing_mm"]),
        mask_may_be_scaled=True,
    )


def _spacing(value: str | None) -> float | None:
    if value is None:
        return None
    try:
        spacing = float(value)
    except ValueError:
        spacing = 0.0
    if not 0 < spacing < 10:
        raise InputError(f"{METADATA}: pixel_spacing_mm {value!r}; expected millimetres, e.g. 0.08")
    return spacing
