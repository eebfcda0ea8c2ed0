"""Patients whose ids a person may take for one, which a split might then part."""

from __future__ import annotations

import pandas as pd

from stdiff.datasets.cells import look_alike


def alike_patients(cases: pd.DataFrame) -> list[str]:
    """One line for each set of patients that differ in zeros, case, blanks or signs only.

    Args:
        cases: rows with ``collection`` and ``patient_id``.
    """
    known = cases.dropna(subset="patient_id")
    found = []
    for (collection, alike), rows in known.groupby(
        ["collection", known["patient_id"].map(look_alike)]
    ):
        counts = rows["patient_id"].value_counts().sort_index()
        if alike and len(counts) > 1:
            named = " and ".join(f"{name!r} ({count} images)" for name, count in counts.items())
            found.append(
                f"patients {named} of {collection}: look like one; if they are, write the id alike "
                "everywhere, else a split may part their images"
            )
    return found
