"""Raw cases and problems, which every collection's reader returns, and what readers share.

A reader lists and pairs files and reads metadata; it decodes no pixels. An error of the whole
collection (a missing folder or column, a repeated id) is an ``InputError``. An error of one file is
a :class:`Problem`: that file is left out.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from stdiff.birads.lexicon import Findings
from stdiff.runtime.files import InputError, is_clutter
from stdiff.runtime.names import escaped

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".dcm", ".dicom")
# Archives wrap a collection in one or two folders.
_LEVELS_DOWN = 2
_FLAG_CHARACTERS = 60


@dataclass(frozen=True)
class Problem:
    """A raw file or row that is left out, and why."""

    source_path: str
    reason: str

    def __str__(self) -> str:
        return f"{self.source_path}: {self.reason}"


@dataclass(frozen=True)
class RawCase:
    """One image of a raw collection and its metadata.

    Attributes:
        case_id: ``<collection>/<name>``.
        root: folder of the collection; ``source_path`` is relative to it.
        mask_paths: one file per lesion, combined by OR; empty if the image has no mask.
        lesion_free: known to show no lesion, so its mask is all-zero rather than unknown.
        findings: terms that a person gave.
        group: cases that no split may separate, where the patient is unknown.
        origin: the collection that the image was taken from, in its own spelling.
        origin_known: False if the image may come from any other collection.
        stated_size_px: (height, width) in the metadata.
        stated_box_px: lesion's (x_min, y_min, x_max, y_max) in the metadata, 0-based, inclusive.
        mask_may_be_scaled: a mask of another size shows the whole frame and is resized to the
            image; otherwise such a mask is refused.
        mask_colours: the only colours a mask may hold, (red, green, blue) → pathology, None for
            background; checked against ``findings.pathology``. If None, any bright pixel is lesion.
        lesion_crop: the image is a part of a frame, cut out around the lesion.
        pixel_spacing_mm: of the raw image.
        device: scanner and probe, as the collection names them.
    """

    case_id: str
    root: Path
    image_path: Path
    mask_paths: tuple[Path, ...] = ()
    lesion_free: bool = False
    findings: Findings = Findings()
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
    def collection(self) -> str:
        """Name of the collection."""
        return self.case_id.partition("/")[0]

    @property
    def annotated(self) -> tuple[str, ...]:
        """Case-table columns that a person filled, ``histology`` included."""
        columns = [name for name, term in self.findings.as_row().items() if term]
        return (*columns, *(("histology",) if self.histology else ()))

    @property
    def source_path(self) -> str:
        """Image path relative to the collection's folder, the same on every machine."""
        return relative(self.image_path, self.root)

    @property
    def group_id(self) -> str:
        """Patient if known, else the reader's group, else the case alone."""
        if self.patient_id is not None:
            return f"{self.collection}/patient-{self.patient_id}"
        return self.group or self.case_id


Reading = tuple[list[RawCase], list[Problem]]


def relative(path: Path, root: Path) -> str:
    """Path below ``root`` with forward slashes, fit to be stored and printed."""
    return escaped(path.relative_to(root).as_posix())


def cases_or_problems(attempts: Iterable[tuple[str, Callable[[], RawCase]]]) -> Reading:
    """The cases that can be made, and a problem for each that raises an ``InputError``.

    Args:
        attempts: source path and what makes the case.
    """
    cases, problems = [], []
    for source_path, make in attempts:
        try:
            cases.append(make())
        except InputError as error:
            problems.append(Problem(source_path, str(error)))
    return cases, problems


def problems_of(paths: Iterable[Path], root: Path, reason: str) -> list[Problem]:
    """One problem per file, all for the same reason."""
    return [Problem(relative(path, root), reason) for path in paths]


@cache
def warn(text: str) -> None:
    """Print a warning on what does not hinder; each once, though a folder is read repeatedly."""
    print(f"stdiff: warning: {text}", file=sys.stderr)


def unknown_term(field: str, value: object) -> str:
    """The flag for a value that no reader knows: ``unknown_term:<field>=<value>``, cut short."""
    return f"unknown_term:{field}={_cut_short(value)}"


def unreadable_metadata(field: str, value: object) -> str:
    """The flag for a number or box that cannot be read as one, cut short."""
    return f"unreadable_metadata:{field}={_cut_short(value)}"


def _cut_short(value: object) -> str:
    text = " ".join(str(value).split())
    return text if len(text) <= _FLAG_CHARACTERS else f"{text[:_FLAG_CHARACTERS]}…"


def given_folder(raw: Path, name: str) -> Path:
    """The folder given by the user, if it exists.

    Raises:
        InputError: it is missing, or no folder.
    """
    raw = Path(raw)
    if not raw.is_dir():
        raise InputError(
            f"{raw}: no such folder; give the folder {name}/ of the unpacked collection, "
            "or the folder that holds it"
        )
    return raw


def folders_by_depth(raw: Path) -> Iterator[list[Path]]:
    """``raw``, then the folders in it, then those in them, each depth in name order.

    A folder that several links lead to comes once.
    """
    level, known = [raw], {raw.resolve()}
    yield level
    for _ in range(_LEVELS_DOWN):
        below = [path for folder in level for path in sorted(folder.iterdir())]
        level = []
        for path in below:
            if path.is_dir() and not is_clutter(path) and path.resolve() not in known:
                known.add(path.resolve())
                level.append(path)
        yield level


def collection_root(raw: Path, name: str, parts: Sequence[str]) -> Path:
    """The collection's folder, whatever its name: the topmost one that holds all parts.

    Raises:
        InputError: ``raw`` is missing, no folder holds all ``parts``, or several do and not
            exactly one of them is called ``name``.
    """
    raw = given_folder(raw, name)
    for level in folders_by_depth(raw):
        fitting = [path for path in level if all((path / part).exists() for part in parts)]
        named = [path for path in fitting if path.name == name]
        if len(named or fitting) == 1:
            return (named or fitting)[0]
        if fitting:
            several = ", ".join(relative(path, raw) for path in fitting)
            raise InputError(f"{raw}: several folders look like {name}/: {several}; give one")
    root = raw / name if (raw / name).is_dir() else raw
    missing = [part for part in parts if not (root / part).exists()]
    raise InputError(
        f"{root}: not laid out as {name}/: {', '.join(missing)} missing, found {listed(root)}; "
        f"expected {', '.join(parts)}"
    )


def paths_in_collection(raw: Path, name: str, parts: Sequence[str]) -> list[Path]:
    """The parts of a collection; see :func:`collection_root`."""
    root = collection_root(raw, name, parts)
    return [root / part for part in parts]


def listed(folder: Path) -> str:
    """The first names in a folder, for a message."""
    return ", ".join(sorted(path.name for path in folder.iterdir())[:8]) or "nothing"


def files_in(folder: Path) -> list[Path]:
    """Files of one folder in name order, without clutter.

    Includes folders and broken links named like an image, which are later reported as unreadable.
    """
    return sorted(
        path
        for path in folder.iterdir()
        if not is_clutter(path) and (not path.is_dir() or path.suffix.lower() in IMAGE_SUFFIXES)
    )


def refuse_repeats(names: Iterable[str], where: str) -> None:
    """Raise one ``InputError`` with all repeated names."""
    repeated = [f"{name} ({n} times)" for name, n in sorted(Counter(names).items()) if n > 1]
    if repeated:
        raise InputError(
            f"{where}: must be unique, but repeated: {', '.join(repeated)}; keep one of each"
        )
