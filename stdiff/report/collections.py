"""Page of a collection: counts, distributions, near-duplicates, files left out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from stdiff.datasets.integrity import Integrity
from stdiff.report.collection_figures import distributions, pair_tiles, quarantine_tiles
from stdiff.report.pages import FIGURES, PAGE, refuse_other_folder, render_page
from stdiff.report.tables import quarantine_table
from stdiff.runtime.files import atomic_write, write_text


def write_integrity_page(found: Integrity, tables: Sequence[Path], root: Path, out: Path) -> None:
    """``index.html`` and ``figures/*.svg`` of one collection or case table.

    Args:
        found: what was found.
        tables: its case tables, for pictures.
        root: folder of the quarantine's paths.
        out: folder to write atomically; an earlier page is replaced.

    Raises:
        InputError: ``out`` contains anything but such a page.
    """
    refuse_other_folder(out)
    with atomic_write(out) as temporary:
        (temporary / FIGURES).mkdir(parents=True)
        contents = {
            "collection": collection_contents(found, tables, root, temporary / FIGURES),
            "quarantine": quarantine_table({found.name: found.quarantine}),
            "problems": found.problems,
        }
        write_text(temporary / PAGE, render_page("integrity.html.j2", contents))


def collection_contents(
    found: Integrity, tables: Sequence[Path], root: Path, folder: Path
) -> dict[str, Any]:
    """Variables of ``collection.html.j2``; its figures are written to ``folder`` too.

    Args:
        found: what was found.
        tables: case tables of its cases and of their near-duplicates.
        root: folder of the quarantine's paths.
        folder: where the figures go.
    """
    stem = Path(found.name).stem
    cases, pairs, left_out = found.cases, found.pairs, found.quarantine
    return {
        "name": stem,
        "counts": [(name, count) for name, count in found.counts() if count],
        "distributions": (
            None if cases.empty else distributions(cases, folder / f"distributions_{stem}")
        ),
        "pairs": pair_tiles(pairs, tables),
        "all_pairs": len(pairs),
        "left_out": quarantine_tiles(left_out, root),
        "all_left_out": len(left_out),
    }
