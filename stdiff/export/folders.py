"""``images/``, ``masks/`` and a CSV, for tools that read nothing else."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

from stdiff.export.notice import Notice
from stdiff.export.selection import PICTURES, Case, Choice
from stdiff.runtime.files import write_text
from stdiff.table.cases import PIXELS, SCHEMA
from stdiff.table.spreadsheet import as_shown

# Pixels are in separate files; a fingerprint is of no use in a CSV.
_ROW_COLUMNS = tuple(name for name in SCHEMA.names if name not in (*PIXELS, "fingerprint"))

_FILES = """\
images/    8-bit grey PNG
masks/     lesion masks of the same names, 0 or 255; an image without a label has no mask
cases.csv  one line for each image: findings, caption, origin. Several terms are joined by `;`.
           `synthetic` is `yes` for an image that a model generated. A text that a spreadsheet
           would take for a formula has an apostrophe before it."""


def write(choice: Choice, folder: Path) -> None:
    """Write ``images/``, ``masks/``, ``cases.csv`` and ``README.txt``.

    With splits the CSV has a column ``role``. With rejected cases it has a column ``accepted``:
    yes, no, or empty for a case that no filter has judged.
    """
    for name in PICTURES:
        (folder / f"{name}s").mkdir()
    columns = [*PICTURES, "synthetic"]
    columns += ["role"] if choice.splits else []
    columns += ["accepted"] if choice.rejected_too else []
    notice = Notice(choice.left_out)
    with (folder / "cases.csv").open("w", newline="", encoding="utf-8") as handle:
        writer = csv.DictWriter(handle, [*columns, *_ROW_COLUMNS], extrasaction="ignore")
        writer.writeheader()
        for case in choice.cases():
            written = {column: _write_png(case, column, folder) for column in PICTURES}
            if written["image"]:
                notice.count(case.row["collection"], case.synthetic)
            about = {"synthetic": _yes(case.synthetic), "role": case.role}
            about["accepted"] = "" if case.accepted is None else _yes(case.accepted)
            values = {name: _as_text(case.row[name]) for name in _ROW_COLUMNS}
            writer.writerow({**values, **written, **about})
    write_text(folder / "README.txt", notice.text(_FILES) + "\n")


def _write_png(case: Case, column: str, folder: Path) -> str:
    """Write one picture; returns its path within the folder, or "" where there is none."""
    if (data := case.pixels(column)) is None:
        return ""
    name = f"{column}s/{case.stem}.png"
    (folder / name).write_bytes(data)
    return name


def _yes(value: bool) -> str:
    return "yes" if value else "no"


def _as_text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, list):
        value = ";".join(value)
    if isinstance(value, str):
        return as_shown(value)
    return json.dumps(value) if isinstance(value, dict) else str(value)
