"""A collection as found, for a page: counts, distributions, near-duplicates, files left out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from stdiff.datasets.integrity import Integrity
from stdiff.report.canvas import embedded
from stdiff.report.collection_figures import (
    distributions,
    pair_montage,
    quarantine_montage,
)
from stdiff.report.pages import FIGURES, PAGE, refuse_other_folder, render_page
from stdiff.report.tables import quarantine_table
from stdiff.runtime.files import atomic_write, write_text


def write_integrity_page(found: Integrity, table: Path, root: Path, out: Path) -> None:
    """``index.html`` and ``figures/*.png`` of one collection or case table.

    Args:
        found: what was found.
        table: its case table, for pictures.
        root: folder that the quarantine's paths are relative to.
        out: folder to write, whole or not at all; an earlier page is replaced.

    Raises:
        InputError: ``out`` holds other things than such a page.
    """
    refuse_other_folder(out)
    with atomic_write(out) as temporary:
        (temporary / FIGURES).mkdir(parents=True)
        contents = {
            "collection": collection_contents(found, [table], root, temporary / FIGURES),
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
        tables: case tables that hold its cases and those that they share a scene with.
        root: folder that the quarantine's paths are relative to.
        folder: where the figures go.
    """
    stem = Path(found.name).stem
    contents: dict[str, Any] = {
        "name": stem,
        "counts": [(what, how_many) for what, how_many in found.counts() if how_many],
        "distributions": None,
        "pairs": None,
        "quarantine": None,
    }
    if len(found.cases):
        path = folder / f"distributions_{stem}.png"
        distributions(found.cases, path)
        contents["distributions"] = embedded(path)
    if len(found.pairs):
        path = folder / f"duplicates_{stem}.png"
        shown = pair_montage(found.pairs, tables, path)
        contents["pairs"] = {"shown": shown, "all": len(found.pairs), "figure": embedded(path)}
    if len(found.quarantine):
        path = folder / f"quarantine_{stem}.png"
        shown = quarantine_montage(found.quarantine, root, path)
        contents["quarantine"] = {
            "shown": shown,
            "all": len(found.quarantine),
            "figure": embedded(path),
        }
    return contents
