"""What every collection's reader hands over: raw cases and problems.

A reader lists and pairs files and reads metadata; it decodes no pixels. What is wrong with the
collection as a whole (a folder or a column missing, one id twice) is an ``InputError``; what is
wrong with one file is a :class:`Problem`, and the run goes on without it.
"""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from stdiff.files import InputError
from stdiff.lexicon import Findings

# Left behind by file managers; nothing to report.
_CLUTTER = frozenset({".DS_Store", "Thumbs.db", "desktop.ini"})


@dataclass(frozen=True)
class Problem:
    """A raw file or row that is left out, and why."""

    source_path: str
    reason: str


@dataclass(frozen=True)
class RawCase:
    """One image of a raw collection with everything its files say about it.

    Attributes:
        root: folder of the collection; ``source_path`` is relative to it.
        mask_paths: one file a lesion, OR-ed to one mask; empty when nobody drew any.
        lesion_free: known to show no lesion, so that its mask is all-zero rather than unknown.
        annotated: case-table columns that a person filled, ``histology`` included.
        group: what a split may not cut where the patient is unknown.
        origin: the collection that the image was taken from, in its own spelling.
        origin_known: False where it may come from any other collection.
        stated_size_px: (height, width) that the metadata claims.
        stated_box_px: lesion's (x_min, y_min, x_max, y_max) that the metadata claims, 0-based,
            both ends inside.
        mask_may_be_scaled: a mask of another size and the same aspect ratio is brought to the
            image's size instead of being refused.
        mask_colours: the only colours a mask may hold, (red, green, blue) → pathology, None for
            background; held against ``findings.pathology``. Any bright pixel is lesion if None.
        lesion_crop: the image is a part of a frame, cut out around the lesion.
        pixel_spacing_mm: of the raw image.
        device: scanner and probe, as the collection names them.
    """

    case_id: str
    collection: str
    root: Path
    image_path: Path
    mask_paths: tuple[Path, ...] = ()
    lesion_free: bool = False
    findings: Findings = Findings()
    annotated: tuple[str, ...] = ()
    histology: str | None = None
    patient_id: str | None = None
    group: str | None = None
    origin: str | None = None
    origin_known: bool = True
    stated_size_px: tuple[int, int] | None = None
    stated_box_px: tuple[int, int, int, int] | None = None
    mask_may_be_scaled: bool = False
    mask_colours: Mapping[tuple[int, int, int], str | None] | None = None
    lesion_crop: bool = False
    pixel_spacing_mm: float | None = None
    device: str | None = None
    flags: tuple[str, ...] = ()

    @property
    def source_path(self) -> str:
        """Image path relative to the collection's folder, the same on every machine."""
        return relative(self.image_path, self.root)

    @property
    def group_id(self) -> str:
        """Patient if known, else the reader's group, else the case by itself."""
        if self.patient_id is not None:
            return f"{self.collection}/patient-{self.patient_id}"
        return self.group or self.case_id


Reading = tuple[list[RawCase], list[Problem]]


def relative(path: Path, root: Path) -> str:
    """Path below ``root`` with forward slashes."""
    return path.relative_to(root).as_posix()


def collection_root(raw: Path, name: str, parts: Sequence[str]) -> Path:
    """The collection's own folder: ``raw`` itself, or the folder ``name`` inside it.

    Raises:
        InputError: ``raw`` is missing, or neither folder holds all of ``parts``.
    """
    raw = Path(raw)
    if not raw.is_dir():
        raise InputError(
            f"{raw}: no such folder; give the folder {name}/ of the unpacked collection, "
            "or the folder that holds it"
        )
    root = raw / name if (raw / name).is_dir() else raw
    missing = [part for part in parts if not (root / part).exists()]
    if missing:
        found = ", ".join(sorted(p.name for p in root.iterdir())[:8]) or "nothing"
        raise InputError(
            f"{root}: not laid out as {name}/: {', '.join(missing)} missing, found {found}; "
            f"expected {', '.join(parts)}"
        )
    return root


def files_in(folder: Path) -> list[Path]:
    """Files of one folder in name order, whatever the disk's order, without clutter."""
    return sorted(
        path
        for path in folder.iterdir()
        if path.is_file() and path.name not in _CLUTTER and not path.name.startswith("._")
    )


def read_rows(path: Path, columns: Sequence[str], key: str) -> list[dict[str, str]]:
    """Rows of a CSV file with a header.

    Raises:
        InputError: no such file, not UTF-8, a column missing, or a ``key`` that stands twice.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such file; it comes with the collection")
    try:
        with path.open(encoding="utf-8-sig", newline="") as handle:
            reader = csv.DictReader(handle, restval="")
            rows = list(reader)
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: not a UTF-8 CSV file ({error})") from error
    found = reader.fieldnames or []
    missing = [column for column in columns if column not in found]
    if missing:
        raise InputError(
            f"{path}: column(s) {', '.join(missing)} missing; found {', '.join(found) or 'none'}"
        )
    refuse_repeats((row[key] for row in rows), f"{path}: column {key}")
    return rows


def refuse_repeats(names: Iterable[str], where: str) -> None:
    """Raise one ``InputError`` with every name that stands more than once."""
    repeated = [f"{name} ({n} times)" for name, n in sorted(Counter(names).items()) if n > 1]
    if repeated:
        raise InputError(
            f"{where}: must be unique, but repeated: {', '.join(repeated)}; keep one of each"
        )
