import numpy as np
import pandas as pd
import pytest
from drawn_cases import SIZE_PX, drawn_row

from stdiff.table.cases import png_cell, write_cases


@pytest.fixture(scope="module")
def tables(tmp_path_factory):
    """8 training cases, 2 for validation, 5 test lesions, two without; a corpus of 6."""
    folder = tmp_path_factory.mktemp("tables")
    rows = [drawn_row(f"busi/{i:02d}", i) for i in range(15)]
    empty = np.zeros((SIZE_PX, SIZE_PX), np.uint8)
    rows.append(drawn_row("busi/normal", 50) | {"lesion_count": 0, "mask": png_cell(empty, "m")})
    rows.append(drawn_row("busi/unlabelled", 51) | {"lesion_count": None, "mask": None})
    write_cases(rows, folder / "cases.parquet")
    made = [drawn_row(f"c/{i}", 100 + i, sample_index=i) for i in range(6)]
    write_cases(made, folder / "corpus.parquet")
    write_cases([drawn_row("c/0", 1, size_px=16)], folder / "small.parquet")
    ids = [row["case_id"] for row in rows]
    pd.DataFrame(
        {
            "case_id": ids,
            "collection": "busi",
            "group_id": [f"cluster{i // 2}" for i in range(len(ids))],
            "fold": 0,
            "role": ["train"] * 8 + ["validation"] * 2 + ["test"] * 7,
            "label_rank": [i / 8 for i in range(8)] + [None] * 9,
            "label_conflict": False,
        }
    ).to_parquet(folder / "splits.parquet")
    return folder
