"""A folder that Hugging Face's ``load_dataset`` opens and that can be uploaded.

The rows are those of the case table, whose metadata marks the columns ``image`` and ``mask`` as
images (see :data:`stdiff.table.cases.SCHEMA`); a shard opens the same way without an export.
The export adds: only accepted cases, parts by role, and the dataset card.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from stdiff.export.notice import Notice
from stdiff.export.selection import ROLES, Choice
from stdiff.runtime.files import write_text
from stdiff.table.cases import PIXELS, SCHEMA, WRITING

# Some hundred megabytes at 256 px: what the hub advises for one file.
_ROWS_IN_A_FILE = 10_000
# A viewer reads one row group at a time.
_ROWS_IN_A_GROUP = 250

_FILES = """\
```python
from datasets import load_dataset

cases = load_dataset("path/to/this/folder")
```

`image` and `mask` are 8-bit grey images of one size (mask 0 or 255, null where an image is
unlabelled); the other columns are BI-RADS terms, a caption made of them, and where the case came
from."""


def write(choice: Choice, folder: Path) -> None:
    """Write ``data/<role>-00000.parquet`` … and ``README.md``."""
    (folder / "data").mkdir()
    notice = Notice(choice.left_out)
    parts: dict[str, _Part] = {}
    try:
        for case in choice.cases():
            for column in PIXELS:
                case.pixels(column)  # refuses what is no 8-bit grey PNG
            part = parts.setdefault(case.role, _Part(folder / "data", case.role))
            part.add(case.row)
            notice.count(case.row["collection"], case.synthetic)
    finally:
        for part in parts.values():
            part.close()
    roles = [role for role in ROLES if role in parts]
    write_text(folder / "README.md", _card(notice, roles))


class _Part:
    """The files of one role."""

    def __init__(self, folder: Path, role: str) -> None:
        self._folder, self._role = folder, role
        self._rows: list[dict[str, Any]] = []
        self._written = 0
        self._writer: pq.ParquetWriter | None = None

    def add(self, row: dict[str, Any]) -> None:
        """Append a row."""
        self._rows.append(row)
        if len(self._rows) == _ROWS_IN_A_GROUP:
            self._write_group()

    def close(self) -> None:
        """Write what is left."""
        if self._rows:
            self._write_group()
        if self._writer:
            self._writer.close()

    def _write_group(self) -> None:
        if self._writer is None:
            number = self._written // _ROWS_IN_A_FILE
            path = self._folder / f"{self._role}-{number:05d}.parquet"
            self._writer = pq.ParquetWriter(path, SCHEMA, **WRITING)
        self._writer.write_table(pa.Table.from_pylist(self._rows, schema=SCHEMA))
        self._written += len(self._rows)
        self._rows = []
        if self._written % _ROWS_IN_A_FILE == 0:
            self._writer.close()
            self._writer = None


def _card(notice: Notice, roles: list[str]) -> str:
    """The dataset card: what it is for machines, then for people."""
    files = [{"split": role, "path": f"data/{role}-*.parquet"} for role in roles]
    front = {
        "license": "other",
        "task_categories": ["image-segmentation"],
        "tags": ["medical", "ultrasound"] + (["synthetic"] if notice.synthetic else []),
        "configs": [{"config_name": "default", "data_files": files}],
    }
    return f"---\n{yaml.safe_dump(front, sort_keys=False)}---\n\n{notice.text(_FILES)}\n"
