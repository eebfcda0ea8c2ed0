"""A raw collection becomes one case table, and a second table says what was left out and why."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from tqdm import tqdm

from stdiff.cases import case_row, png_cell, write_cases
from stdiff.datasets import bus_bra, bus_cot, busi, folder
from stdiff.datasets.descriptors import components, derived_terms
from stdiff.datasets.geometry import Fit, fit_frame
from stdiff.datasets.pixels import read_pixels
from stdiff.datasets.raw import Problem, RawCase, Reading, refuse_repeats
from stdiff.files import InputError, sha256_file, written_whole
from stdiff.lexicon import Findings, render

READERS: dict[str, Callable[[Path], Reading]] = {
    reader.COLLECTION: reader.read for reader in (busi, bus_bra, bus_cot, folder)
}
# Flags that say the raw files contradict themselves or hold what no reader knows.
_DEFECTS = ("csv_size_mismatch", "bbox_mismatch", "unknown_term:")
_QUARANTINE_SCHEMA = pa.schema([("source_path", pa.string()), ("reason", pa.string())])
_LISTED = 5


def harmonize(
    collection: str,
    raw: Path,
    out: Path,
    quarantine: Path,
    *,
    size_px: int,
    fit: str = "stretch",
    limit: int | None = None,
    drop_sources: Sequence[str] = (),
    processes: int = 1,
) -> None:
    """Write a collection's case table, sorted by case_id, and its quarantine table.

    Args:
        collection: a key of :data:`READERS`.
        raw: the collection's own folder, or the one that holds it.
        out: Parquet case table; written whole, or not at all.
        quarantine: Parquet table (source_path, reason) of everything that was left out.
        size_px: side of the stored squares.
        fit: how a frame becomes a square, see :func:`stdiff.datasets.geometry.fit_frame`.
        limit: take this many cases, spaced evenly over the sorted case ids, before pixels are
            read; classes stay represented. All if None.
        drop_sources: collections that stand in the run already; what was taken from them, or
            might have been, goes to the quarantine.
        processes: worker processes; the result does not depend on it.

    Raises:
        InputError: unknown collection or fit, a raw folder that cannot be read as the collection,
            or not one usable case.
    """
    fit_frame(1, 1, size_px, fit)
    if limit is not None and limit < 1:
        raise InputError(f"limit: {limit}; expected at least 1, or none for all cases")
    cases, problems = read_raw(collection, raw)
    cases, dropped = _without_sources(cases, drop_sources)
    problems = problems + dropped
    cases = _evenly_spaced(cases, limit)
    rows = []
    work = partial(_row_or_problem, size_px=size_px, fit=fit)
    for result in tqdm(
        _mapped(work, cases, processes),
        total=len(cases),
        desc=f"harmonize {collection}",
        unit="image",
        disable=None,
    ):
        (problems if isinstance(result, Problem) else rows).append(result)
    write_quarantine(problems, quarantine)
    if not rows:
        raise InputError(f"{raw}: no usable case of {collection}; {_summary(problems)}")
    write_cases(rows, out)


def read_raw(collection: str, raw: Path) -> Reading:
    """Cases of a raw collection, sorted by case_id, and what its reader could not use.

    Raises:
        InputError: as :func:`harmonize`.
    """
    if collection not in READERS:
        raise InputError(
            f"collection: {collection!r} is not known; expected one of {', '.join(sorted(READERS))}"
        )
    cases, problems = READERS[collection](Path(raw))
    refuse_repeats((case.case_id for case in cases), f"{raw}: case_id")
    return sorted(cases, key=lambda case: case.case_id), problems


def verify_raw(collection: str, raw: Path) -> list[str]:
    """Every problem of a raw collection, one line each; empty when it is sound."""
    try:
        cases, problems = read_raw(collection, raw)
    except InputError as error:
        return [str(error)]
    lines = [f"{problem.source_path}: {problem.reason}" for problem in problems]
    for case in tqdm(cases, desc=f"verify {collection}", unit="image", disable=None):
        try:
            pixels = read_pixels(case)
        except InputError as error:
            lines.append(f"{case.source_path}: {_reason(case, error)}")
            continue
        flags = [flag for flag in pixels.flags if flag.startswith(_DEFECTS)]
        lines += [f"{case.source_path}: {flag}" for flag in flags]
    return sorted(lines)


def write_quarantine(problems: Iterable[Problem], path: Path) -> None:
    """Write the problems as a Parquet table, sorted, whole or not at all."""
    rows = sorted({(problem.source_path, problem.reason) for problem in problems})
    names = _QUARANTINE_SCHEMA.names
    table = pa.Table.from_pylist(
        [dict(zip(names, row, strict=True)) for row in rows], schema=_QUARANTINE_SCHEMA
    )
    with written_whole(path) as aside:
        pq.write_table(table, aside)


def _without_sources(
    cases: list[RawCase], drop_sources: Sequence[str]
) -> tuple[list[RawCase], list[Problem]]:
    """Cases that no other collection of the run holds, and the rest as problems."""
    kept, dropped = [], []
    for case in cases:
        origin = _plain(case.origin or "")
        # "BUSI", "Dataset_BUSI", "BUS-BRA dataset": rather one image too few than a leak.
        source = next((s for s in drop_sources if origin and _plain(s) in origin), None)
        if source:
            dropped.append(Problem(case.source_path, f"stands in {source} already"))
        elif drop_sources and not case.origin_known:
            reason = f"origin unknown, may stand in {' or '.join(drop_sources)} already"
            dropped.append(Problem(case.source_path, reason))
        else:
            kept.append(case)
    return kept, dropped


def _plain(source: str) -> str:
    """'BUS-BRA', 'BUSBRA' and 'bus_bra' are one collection."""
    return "".join(character for character in source.lower() if character.isalnum())


def _evenly_spaced(cases: list[RawCase], limit: int | None) -> list[RawCase]:
    if limit is None or limit >= len(cases):
        return cases
    return [cases[index * len(cases) // limit] for index in range(limit)]


def _mapped(
    work: Callable[[RawCase], dict[str, Any] | Problem], cases: list[RawCase], processes: int
) -> Iterator[dict[str, Any] | Problem]:
    if processes <= 1:
        yield from map(work, cases)
        return
    with ProcessPoolExecutor(min(processes, os.cpu_count() or 1)) as pool:
        yield from pool.map(work, cases, chunksize=16)


def _row_or_problem(case: RawCase, size_px: int, fit: str) -> dict[str, Any] | Problem:
    try:
        return _row(case, size_px, fit)
    except InputError as error:
        return Problem(case.source_path, _reason(case, error))


def _reason(case: RawCase, error: InputError) -> str:
    """The message with paths relative to the collection, so that tables name no machine."""
    return str(error).replace(f"{case.root}{os.sep}", "")


def _row(case: RawCase, size_px: int, fit: str) -> dict[str, Any]:
    """The case-table row; descriptors and lesion count are taken at native geometry."""
    pixels = read_pixels(case)
    placed = fit_frame(*pixels.image_HW.shape, size_px, fit)
    findings, mask, lesion_count, flags = case.findings, None, None, pixels.flags
    if pixels.mask_HW is not None:
        _, lesion_count = components(pixels.mask_HW)
        findings = _completed(findings, derived_terms(pixels.image_HW, pixels.mask_HW))
        stored_mask, cut = _stored_mask(pixels.mask_HW, placed)
        mask = png_cell(stored_mask, f"{case.case_id}-mask")
        flags = (*flags, *(["lesion_cut_by_crop"] if cut else []))
    return case_row(
        case_id=case.case_id,
        collection=case.collection,
        patient_id=case.patient_id,
        group_id=case.group_id,
        image=png_cell(placed.image(pixels.image_HW), case.case_id),
        mask=mask,
        height_px=size_px,
        width_px=size_px,
        pixel_spacing_mm=placed.spacing_mm(case.pixel_spacing_mm),
        histology=case.histology,
        **findings.as_row(),
        annotated=list(case.annotated),
        caption=render(findings),
        lesion_count=lesion_count,
        flags=sorted(flags),
        source_path=case.source_path,
        source_sha256=sha256_file(case.image_path),
        transform=placed.transform(),
    )


def _completed(findings: Findings, derived: dict[str, str]) -> Findings:
    """Findings with the derived terms in columns that nobody annotated."""
    missing = {name: term for name, term in derived.items() if getattr(findings, name) is None}
    return replace(findings, **missing)


def _stored_mask(mask_HW: np.ndarray, placed: Fit) -> tuple[np.ndarray, bool]:
    """Mask in the square, and whether the square cuts part of the lesion away."""
    stored = placed.mask(mask_HW)
    if mask_HW.any() and not stored.any():
        # Stored all-zero, it would claim that the image is free of lesions.
        raise InputError(f"no pixel of the lesion is left at {placed.size_px} px; raise size_px")
    left, top, right, bottom = placed.box_px
    return stored, bool(mask_HW.sum() > mask_HW[top:bottom, left:right].sum())


def _summary(problems: Sequence[Problem]) -> str:
    """The most frequent reasons, for a message."""
    reasons = Counter(problem.reason for problem in problems).most_common(_LISTED)
    return "; ".join(f"{count} x {reason}" for reason, count in reasons) or "the folder is empty"
