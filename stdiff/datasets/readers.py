"""The collections that can be read, by name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from stdiff.datasets import breast, bus_bra, bus_cot, bus_uclm, busi, folder
from stdiff.datasets.raw import Problem, Reading, refuse_repeats
from stdiff.runtime.files import InputError
from stdiff.table.case_ids import case_id_problem

_MODULES = (busi, bus_bra, bus_cot, breast, bus_uclm, folder)
READERS: dict[str, Callable[[Path], Reading]] = {
    reader.COLLECTION: reader.read for reader in _MODULES
}
_PLACES = {reader.COLLECTION: reader.places for reader in _MODULES}


def read_raw(collection: str, raw: Path) -> Reading:
    """Cases of a raw collection, sorted by case_id, and what its reader could not use.

    Raises:
        InputError: unknown collection, a raw folder that cannot be read as the collection, or a
            case_id twice.
    """
    if collection not in READERS:
        raise InputError(
            f"collection: {collection!r} is not known; expected one of {', '.join(sorted(READERS))}"
        )
    cases, problems = READERS[collection](Path(raw))
    refuse_repeats((case.case_id for case in cases), f"{raw}: case_id")
    reasons = {case.case_id: case_id_problem(case.case_id) for case in cases}
    problems += [Problem(c.source_path, why) for c in cases if (why := reasons[c.case_id])]
    usable = (case for case in cases if not reasons[case.case_id])
    return sorted(usable, key=lambda case: case.case_id), problems


def places_of(collection: str, raw: Path) -> list[Path]:
    """The files and folders that a collection's reader reads; all of ``raw`` if it reads none."""
    try:
        return _PLACES[collection](Path(raw))
    except (InputError, OSError):  # which harmonizing reports
        return [Path(raw)]
