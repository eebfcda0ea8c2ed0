"""Turn a raw collection into a case table and a quarantine table of the files left out."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from tqdm import tqdm

from stdiff.datasets.geometry import fit_frame
from stdiff.datasets.raw import Problem, RawCase
from stdiff.datasets.readers import read_raw
from stdiff.datasets.rows import Harmonization, row_or_problem
from stdiff.near_duplicates import leaks
from stdiff.runtime.files import InputError, atomic_write
from stdiff.runtime.problem_kinds import by_kind
from stdiff.runtime.workers import mapped
from stdiff.table.cases import SCHEMA, WRITING, read_cases
from stdiff.table.parquet import read_parquet

_QUARANTINE_SCHEMA = pa.schema([("source_path", pa.string()), ("reason", pa.string())])
# Rows in memory at once, and in one row group of the table.
_BLOCK = 256
# Names that BUS-CoT may give an image's collection of origin, after _plain(). BUSIS and BUSI-WHU
# are other collections.
_ORIGINS = {
    "busi": r"(dataset)?busi(withgt|dataset)?",
    "bus_bra": r"busbra(dataset)?",
    "breast": r"breast(dataset)?|breastlesions(usg)?.*|tciabreast.*",
    "bus_uclm": r"(bus)?uclm(dataset)?",
    "bus_cot": r"buscot(dataset)?",
}


def harmonize(
    collection: str,
    raw: Path,
    out: Path,
    quarantine: Path | None = None,
    *,
    how: Harmonization = Harmonization(),  # noqa: B008 - frozen
    limit: int | None = None,
    drop_sources: Sequence[str] = (),
    processes: int = 1,
) -> pd.DataFrame:
    """Write a collection's case table, sorted by case_id, its pairs and its quarantine table.

    Images of one scene share a ``group_id`` and are flagged ``duplicate``, and ``label_conflict``
    if their pathologies differ. Images are written block by block; only their fingerprints (9 kB
    each) stay in memory, for the search for near-duplicates.

    Args:
        collection: a key of :data:`stdiff.datasets.readers.READERS`.
        raw: the collection's folder, or the folder that holds it.
        out: Parquet case table, written atomically; the pairs within it are kept at
            :func:`stdiff.near_duplicates.leaks.pairs_path`.
        quarantine: Parquet table (source_path, reason) of all files that are left out; default:
            ``<out>_quarantine.parquet`` beside ``out``.
        how: size and treatment of the stored images; default: 256 px.
        limit: number of cases to take, spaced evenly over the sorted case ids, so that all classes
            stay represented; all cases if None.
        drop_sources: other collections of the run; images that come from them, or may, go to the
            quarantine.
        processes: worker processes; the result does not depend on it.

    Returns:
        The pairs of its images that show one scene; see
        :func:`stdiff.near_duplicates.leaks.find_pairs`.

    Raises:
        InputError: unknown collection or fit, a raw folder that cannot be read as the collection,
            or no usable case.
    """
    out = Path(out)
    quarantine = quarantine or out.with_name(f"{out.stem}_quarantine.parquet")
    fit_frame(1, 1, how.size_px, how.fit)
    if limit is not None and limit < 1:
        raise InputError(f"limit: {limit}; expected at least 1, or leave it out to take all cases")
    cases, problems = read_raw(collection, raw)
    cases, dropped = _without_sources(cases, drop_sources)
    problems = problems + dropped
    if limit is not None and limit < len(cases):
        # Not the rows of `evenly_spread`: limited runs keep the cases that they have had.
        cases = [cases[index * len(cases) // limit] for index in range(limit)]
    results = tqdm(
        mapped(partial(row_or_problem, how=how), cases, processes, chunk=16),
        total=len(cases),
        desc=f"harmonize {collection}",
        unit="image",
        disable=None,
    )
    with atomic_write(out) as temporary:
        draft = temporary.with_suffix(".draft")
        try:
            count = _write_blocks(_rows(results, problems), draft)
            write_quarantine(problems, quarantine)
            if not count:
                reasons = "; ".join(by_kind(map(str, problems))) or "the folder is empty"
                raise InputError(f"{raw}: no usable case of {collection}; {reasons}")
            cases = read_cases(draft, leaks.COLUMNS)
            pairs = leaks.find_pairs(cases, processes)
            leaks.keep_pairs(pairs, cases, out)
            _write_linked(draft, cases, pairs, temporary)
            return pairs
        finally:
            draft.unlink(missing_ok=True)


def summary(table: Path, quarantine: Path) -> str:
    """What was made, what was left out for which reasons, and what comes next."""
    with pq.ParquetFile(table) as file:
        images = file.metadata.num_rows
    left_out = [str(Problem(**row)) for row in read_parquet(quarantine).to_pylist()]
    lines = [f"  left out: {line}" for line in by_kind(left_out)]
    listed = f", listed in {quarantine}" if left_out else ""
    counts = f"{images:,} images, {len(left_out):,} left out{listed}"
    following = f"`stdiff split {shlex.quote(str(table))} --out splits.parquet`"
    return "\n".join([*lines, f"{table}: {counts}. Next: {following}"])


def write_quarantine(problems: Iterable[Problem], path: Path) -> None:
    """Write the problems as a Parquet table, sorted; the write is atomic."""
    rows = sorted({(problem.source_path, problem.reason) for problem in problems})
    names = _QUARANTINE_SCHEMA.names
    table = pa.Table.from_pylist(
        [dict(zip(names, row, strict=True)) for row in rows], schema=_QUARANTINE_SCHEMA
    )
    with atomic_write(path) as temporary:
        pq.write_table(table, temporary)


def _without_sources(
    cases: list[RawCase], drop_sources: Sequence[str]
) -> tuple[list[RawCase], list[Problem]]:
    """Cases that are in no other collection of the run, and the others as problems."""
    kept, dropped = [], []
    for case in cases:
        origin = _plain(case.origin or "")
        source = next((s for s in drop_sources if re.fullmatch(_ORIGINS.get(s, s), origin)), None)
        if source:
            dropped.append(Problem(case.source_path, f"already in {source}"))
        elif drop_sources and not case.origin_known:
            reason = f"origin unknown, may already be in {' or '.join(drop_sources)}"
            dropped.append(Problem(case.source_path, reason))
        else:
            kept.append(case)
    return kept, dropped


def _plain(source: str) -> str:
    """'BUS-BRA', 'BUSBRA' and 'bus_bra' are all 'busbra'."""
    return "".join(filter(str.isalnum, source.lower()))


def _rows(
    results: Iterable[dict[str, Any] | Problem], problems: list[Problem]
) -> Iterator[dict[str, Any]]:
    """The rows among the results; problems are appended to ``problems``."""
    for result in results:
        if isinstance(result, Problem):
            problems.append(result)
        else:
            yield result


def _write_blocks(rows: Iterator[dict[str, Any]], path: Path) -> int:
    """Write a table block by block and return its number of rows."""
    count = 0
    with pq.ParquetWriter(path, SCHEMA, compression="none") as writer:
        while block := list(islice(rows, _BLOCK)):
            writer.write_table(pa.Table.from_pylist(block, SCHEMA))
            count += len(block)
    return count


def _write_linked(draft: Path, cases: pd.DataFrame, pairs: pd.DataFrame, out: Path) -> None:
    """Write the draft with the group ids and flags that follow from the pairs of its cases."""
    clusters = leaks.clusters_of(cases, pairs)
    groups = leaks.group_ids(cases, clusters, named_by="group_id")
    duplicate = cases.groupby(clusters)["case_id"].transform("size").to_numpy() > 1
    conflict = leaks.label_conflicts(cases["pathology"], clusters)
    flags = [
        sorted({*old, *(["duplicate"] if twin else []), *(["label_conflict"] if other else [])})
        for old, twin, other in zip(cases["flags"], duplicate, conflict, strict=True)
    ]
    found = {"group_id": groups, "flags": flags}
    with (
        pq.ParquetFile(draft) as source,
        pq.ParquetWriter(out, SCHEMA, **WRITING) as writer,
    ):
        start = 0
        for number in range(source.num_row_groups):
            block = source.read_row_group(number)
            for name, values in found.items():
                column = pa.array(values[start : start + block.num_rows], SCHEMA.field(name).type)
                block = block.set_column(SCHEMA.get_field_index(name), SCHEMA.field(name), column)
            writer.write_table(block)
            start += block.num_rows
