"""The case table: one row per image, real or synthetic, in one Parquet file.

Harmonizer, mask sampler and generator write it; segmenters and evaluators read it.
`datasets.load_dataset("parquet")`, pandas and duckdb open it as it is.
"""

from __future__ import annotations

import itertools
import json
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from stdiff.birads.lexicon import CaptionError, Findings, render
from stdiff.runtime.files import atomic_write
from stdiff.runtime.images import decode_png, encode_png
from stdiff.runtime.names import escaped
from stdiff.table.parquet import read_parquet
from stdiff.table.pixel_cells import mask_doubts_of, pixel_problems
from stdiff.table.shard_list import tables_in
from stdiff.table.values import value_problems
from stdiff.table.verdicts import VERDICT, fill_verdicts, read_verdicts

_PNG = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
_TERMS = pa.list_(pa.string())
_ROW_GROUP = 1000
# What messages call such a file, and how to make one.
KIND, HINT = "case table", "make it with `stdiff harmonize` or `stdiff generate`"
# Columns that hold images.
PIXELS = ("image", "mask", "background")
# With check sums a flipped bit is found on reading.
WRITING: dict[str, Any] = {"compression": "zstd", "write_page_checksum": True}
# Tells Hugging Face's `datasets` which columns to decode as images.
_HUGGING_FACE = {"info": {"features": {name: {"_type": "Image"} for name in PIXELS}}}

SCHEMA = pa.schema(
    [
        pa.field("case_id", pa.string(), nullable=False),
        ("collection", pa.string()),
        ("patient_id", pa.string()),
        ("group_id", pa.string()),
        ("image", _PNG),
        ("mask", _PNG),
        ("height_px", pa.int32()),
        ("width_px", pa.int32()),
        # Of the stored image, from left to right; and from top to bottom, which differs where a
        # frame was stretched to the square.
        ("pixel_spacing_mm", pa.float32()),
        ("pixel_spacing_y_mm", pa.float32()),
        ("device", pa.string()),
        ("pathology", pa.string()),
        ("histology", pa.string()),
        ("birads", pa.string()),
        ("shape", pa.string()),
        ("orientation", pa.string()),
        ("margin", _TERMS),
        ("echo_pattern", pa.string()),
        ("posterior_features", pa.string()),
        ("calcifications", pa.string()),
        ("annotated", _TERMS),
        ("caption", pa.string()),
        ("lesion_count", pa.int32()),
        # Measures of the largest lesion at native geometry; see stdiff.birads.descriptors.
        (
            "measures",
            pa.struct(
                [
                    ("area_fraction", pa.float32()),
                    ("aspect", pa.float32()),
                    ("axis_ratio", pa.float32()),
                    ("solidity", pa.float32()),
                    ("compactness", pa.float32()),
                    ("curvature_energy", pa.float32()),
                    ("lobulations", pa.int32()),
                    ("echo_difference_grey", pa.float32()),
                    ("posterior_difference_grey", pa.float32()),
                    ("bright_spots", pa.int32()),
                ]
            ),
        ),
        ("flags", _TERMS),
        ("source_path", pa.string()),
        ("source_sha256", pa.string()),
        (
            "transform",
            pa.struct(
                [
                    ("scale_x", pa.float64()),
                    ("scale_y", pa.float64()),
                    ("offset_x_px", pa.float64()),
                    ("offset_y_px", pa.float64()),
                    ("native_height_px", pa.int32()),
                    ("native_width_px", pa.int32()),
                ]
            ),
        ),
        # For the search for near-duplicates and crops; see stdiff.near_duplicates.duplicates.
        ("fingerprint", pa.binary()),
        # Synthetic rows only: everything needed to generate the same image again.
        ("seed", pa.int64()),
        ("sample_index", pa.int64()),
        ("mask_origin", pa.string()),
        # The real image that a lesion was put into, named by its path; see corpus.backgrounds.
        ("background", _PNG),
        ("model_sha256", pa.string()),
        ("sampler", pa.string()),
        ("plan_sha256", pa.string()),
        # Null for real rows and unfiltered images; of shards it is stored beside them.
        ("filter", VERDICT),
    ],
    metadata={"stdiff": "case table, version 1", "huggingface": json.dumps(_HUGGING_FACE)},
)


def case_row(**values: Any) -> dict[str, Any]:
    """A complete row: columns not given are null; an unknown column is a TypeError."""
    unknown = set(values) - set(SCHEMA.names)
    if unknown:
        raise TypeError(f"not columns of the case table: {', '.join(sorted(unknown))}")
    return {name: values.get(name) for name in SCHEMA.names}


def png_cell(grey_HW: np.ndarray, name: str) -> dict[str, Any]:
    """An ``image`` or ``mask`` cell of a (height, width) uint8 array."""
    return {"bytes": encode_png(grey_HW), "path": f"{name}.png"}


def write_cases(rows: Iterable[dict[str, Any]], path: Path) -> None:
    """Write rows (see :func:`case_row`) as one Parquet file.

    At most 1000 rows are in memory at a time.
    """
    coming = iter(rows)
    with atomic_write(path) as temporary, pq.ParquetWriter(temporary, SCHEMA, **WRITING) as writer:
        while group := list(itertools.islice(coming, _ROW_GROUP)):
            writer.write_table(pa.Table.from_pylist(group, schema=SCHEMA))


def read_cases(paths: Path | Sequence[Path], columns: Sequence[str] | None = None) -> pd.DataFrame:
    """Rows of one or several case tables or folders of them, in the order given.

    ``image`` and ``mask`` cells are dicts with ``bytes``; see :func:`images_of`.

    Raises:
        InputError: a path that is missing, is no Parquet file, is damaged, or whose columns are
            missing or of another type.
    """
    tables = []
    for path in [paths] if isinstance(paths, (str, Path)) else paths:
        tables += [_read_one(table, columns) for table in tables_in(path)]
    return pa.concat_tables(tables).to_pandas()


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Rows of one case table in the form that :func:`write_cases` takes, nulls as None.

    Raises:
        InputError: see :func:`read_cases`.
    """
    return _read_one(Path(path), None).to_pylist()


def _read_one(path: Path, columns: Sequence[str] | None) -> pa.Table:
    table = read_parquet(path, columns, types=SCHEMA, kind=KIND, hint=HINT)
    if "filter" not in table.column_names:
        return table
    return fill_verdicts(table, read_verdicts(path))


def images_of(cells: Iterable[dict[str, Any] | None]) -> np.ndarray:
    """Decode ``image`` or ``mask`` cells of one size to a (N, height, width) uint8 array."""
    return np.stack([decode_png(cell["bytes"], cell["path"] or "PNG") for cell in cells])


def verify_table(path: Path) -> list[str]:
    """Every problem of a case table, one line each; empty if there is none."""
    rows = read_rows(path)
    names = [escaped(row["case_id"]).strip() or "(no id)" for row in rows]
    problems = repeated_ids(names)
    for name, row in zip(names, rows, strict=True):
        found = [*_row_problems(row), *value_problems(row)]
        problems += [f"{name}: {problem}" for problem in found]
    return problems


def repeated_ids(case_ids: Iterable[str]) -> list[str]:
    """One line for each case_id that occurs more than once."""
    counts = Counter(case_ids)
    return [f"{case}: case_id occurs {n} times" for case, n in counts.items() if n > 1]


def _row_problems(row: dict[str, Any]) -> Iterable[str]:
    of_pixels = [problem for column in PIXELS for problem in pixel_problems(row, column)]
    yield from of_pixels or mask_doubts_of(row)
    if row["image"] is None and row["mask"] is None:
        yield "neither image nor mask"
    try:
        expected = render(Findings.from_row(row))
    except CaptionError as error:
        yield str(error)
        return
    if row["caption"] != expected:
        yield f"caption {row['caption']!r} does not say what the row says ({expected!r})"
