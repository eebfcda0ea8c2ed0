"""Which collections a raw folder holds, from file lists and metadata; no image is decoded."""

from __future__ import annotations

from pathlib import Path

from stdiff.config.suggest import RawCollection
from stdiff.datasets import breast, bus_bra, bus_cot, bus_uclm, busi, folder
from stdiff.datasets.folder_layout import holds_own_images
from stdiff.datasets.raw import listed
from stdiff.datasets.readers import read_raw
from stdiff.runtime.files import InputError, is_clutter

PUBLISHED = {
    reader.COLLECTION: reader.FOLDER for reader in (busi, bus_bra, bus_cot, breast, bus_uclm)
}


def recognise(raw: Path) -> tuple[list[RawCollection], list[str]]:
    """The collections in a folder, and notes on what looks like one and cannot be used.

    Published collections are found up to two levels down, under any name; a folder of the user's
    own images is ``raw`` itself or lies directly in it.

    Raises:
        InputError: no such folder, or it holds no collection.
    """
    raw = Path(raw)
    if not raw.is_dir():
        raise InputError(f"{raw}: no such folder; give the folder that holds the raw data")
    found: list[RawCollection] = []
    notes: list[str] = []
    for name, usual in PUBLISHED.items():
        is_there = (raw / usual).is_dir()
        try:
            found.append(_count(name, raw / usual if is_there else raw, raw))
        except InputError as error:
            notes += [f"{name} cannot be used: {error}"] if is_there else []
    known = {(raw / one.path).resolve() for one in found}
    for path in [raw, *sorted(p for p in raw.iterdir() if p.is_dir() and not is_clutter(p))]:
        if path.resolve() in known or not holds_own_images(path):
            continue
        if any(one.name == folder.COLLECTION for one in found):
            notes.append(f"{path.name} is left out: a run takes one folder of your own")
            continue
        try:
            found.append(_count(folder.COLLECTION, path, raw))
        except InputError as error:
            notes.append(f"{path.name} cannot be used: {error}")
    if not found:
        looked_for = ", ".join(f"{usual}/ ({name})" for name, usual in PUBLISHED.items())
        message = (
            f"{raw}: holds no known collection, found {listed(raw)}. Looked for {looked_for}, and "
            "a folder of your own with images/ and masks/ (docs/data.md)"
        )
        raise InputError("\n".join([message, *notes]))
    return found, notes


def _count(name: str, given: Path, raw: Path) -> RawCollection:
    cases, problems = read_raw(name, given)
    if not cases:
        raise InputError(f"{given}: no image that can be used")
    return RawCollection(
        name,
        cases[0].root.relative_to(raw).as_posix(),
        images=len(cases),
        masks=sum(bool(case.mask_paths) and not case.lesion_free for case in cases),
        patients=len({case.patient_id for case in cases} - {None}),
        left_out=len(problems),
    )
