"""What a classifier tells apart: benign lesions from malignant ones, or BI-RADS categories."""

from __future__ import annotations

import numpy as np
import pandas as pd

from stdiff.config.classification import Target

# In their order. BI-RADS 4A to 4C are 4; 0 (incomplete), 1 (no finding) and 6 (proven by biopsy)
# are no assessments of a lesion's image.
CLASSES: dict[str, tuple[str, ...]] = {
    "pathology": ("benign", "malignant"),
    "birads": ("2", "3", "4", "5"),
}


def classes_of(cases: pd.DataFrame, target: Target) -> np.ndarray:
    """Class indices (N,) int64 of case rows; -1 where it is unknown or no class of the target."""
    values = (
        cases[target].astype("string").str.rstrip("ABC") if target == "birads" else cases[target]
    )
    index = {name: i for i, name in enumerate(CLASSES[target])}
    return np.array([index.get(value, -1) for value in values], np.int64)
