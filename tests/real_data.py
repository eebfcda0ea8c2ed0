"""Where real collections may lie; tests that use them are skipped where they are absent."""

import os
from pathlib import Path

import pytest

_BESIDE = Path(__file__).parents[2] / "shared" / "data"
DATA = Path(os.environ.get("STDIFF_DATA_ROOT", _BESIDE))
real_files = pytest.mark.skipif(
    not ((DATA / "BUSBRA").is_dir() and (DATA / "Dataset_BUSI_with_GT").is_dir()),
    reason="real collections are not here",
)
