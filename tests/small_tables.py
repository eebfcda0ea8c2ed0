"""Small case tables to export: real and synthetic, labelled and not, judged and not."""

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from stdiff.birads.lexicon import Findings, render
from stdiff.runtime.images import decode_png
from stdiff.table.cases import SCHEMA, case_row, png_cell

SIZE = 16
_FILTER = pa.struct([("accepted", pa.bool_()), ("reasons", pa.list_(pa.string()))])


def rows(count=6, collection="syn", *, synthetic=True, first_unlabelled=False):
    """Rows of images that differ in every pixel, with lesions that grow."""
    made = []
    for i in range(count):
        mask = np.zeros((SIZE, SIZE), np.uint8)
        mask[4:8, 4 : 6 + i] = 255
        findings = Findings(pathology="benign", birads="4A", margin=("indistinct", "spiculated"))
        made.append(
            case_row(
                case_id=f"{collection}/{i:08d}",
                collection=collection,
                image=png_cell(mask // 3 + np.arange(SIZE, dtype=np.uint8) + i, "i"),
                mask=None if first_unlabelled and i == 0 else png_cell(mask, "m"),
                height_px=SIZE,
                width_px=SIZE,
                caption=render(findings),
                flags=["synthetic"] if synthetic else [],
                model_sha256="a" * 64 if synthetic else None,
                transform={"scale_x": 2.0},
                **findings.as_row(),
            )
        )
    return made


def judged(row, *reasons):
    """A row that the filter has seen; accepted without a reason against it."""
    return {**row, "filter": {"accepted": not reasons, "reasons": list(reasons)}}


def write(table, path):
    """Write rows as a case table, with or without the filter's column."""
    schema = SCHEMA
    if "filter" not in schema.names and any("filter" in row for row in table):
        schema = schema.append(pa.field("filter", _FILTER))
    pq.write_table(pa.Table.from_pylist(table, schema=schema), path, row_group_size=4)
    return path


def write_splits(roles, path):
    """Splits of {case_id: role}."""
    table = {"case_id": list(roles), "fold": 0, "role": list(roles.values()), "label_rank": 0.0}
    pd.DataFrame(table).to_parquet(path)
    return path


def image_of(row):
    """(height, width) pixels of a row's image."""
    return decode_png(row["image"]["bytes"])


def mask_of(row):
    """(height, width) mask of a row, 0 or 1."""
    return decode_png(row["mask"]["bytes"]) // 255
