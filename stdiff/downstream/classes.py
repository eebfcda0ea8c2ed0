"""Classes of the classifiers: benign and malignant lesions, or BI-RADS categories."""

from __future__ import annotations

import numpy as np
import pandas as pd

from stdiff.config.downstream import Target

# BI-RADS 4A, 4B and 4C count as 4. Categories 0 (incomplete), 1 (no finding) and 6 (proven by
# biopsy) do not assess a lesion's image.
CLASSES: dict[str, tuple[str, ...]] = {
    "pathology": ("benign", "malignant"),
    "birads": ("2", "3", "4", "5"),
}


def classes_of(cases: pd.DataFrame, target: Target) -> np.ndarray:
    """Class indices (N,) int64 of case rows; -1 where unknown or not a class of the target."""
    values = cases[target]
    if target == "birads":
        values = values.astype("string").str.rstrip("ABC")
    index = {name: i for i, name in enumerate(CLASSES[target])}
    return np.array([index.get(value, -1) for value in values], np.int64)
