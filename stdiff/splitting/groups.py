"""Groups of cases that a split may not divide: their properties and the order to draw them in."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import pandas as pd

from stdiff.runtime.randomness import integer_seed

_SEVERITY = ("malignant", "benign", "normal")
_NO_LESION = 3  # after the three terciles of lesion size


def describe_groups(
    cases: pd.DataFrame, base: pd.DataFrame, has_mask: pd.Series, test_only: Collection[str] = ()
) -> pd.DataFrame:
    """Per group: cases, stratum, lesion-size tercile, and whether it may be tested or held out.

    Args:
        cases: rows with ``collection``, ``pathology`` and ``measures``.
        base: of the same rows, ``group_id`` and ``label_conflict``.
        has_mask: of the same rows.
        test_only: collections that no training stage may see, nor any group with a case of them.
    """
    severity = cases["pathology"].map({name: i for i, name in enumerate(_SEVERITY)})
    by_group = pd.DataFrame(
        {
            "collection": cases["collection"],
            # A group of several findings counts by the most severe.
            "severity": severity.fillna(len(_SEVERITY)).astype(int),
            "area_fraction": [area_fraction(cell) for cell in cases["measures"]],
            "has_mask": has_mask,
            "conflict": base["label_conflict"],
            "test_only": cases["collection"].isin(test_only),
        }
    ).groupby(base["group_id"])
    groups = by_group.agg(
        size=("conflict", "size"),
        collection=("collection", "first"),
        severity=("severity", "min"),
        area_fraction=("area_fraction", "max"),
        has_mask=("has_mask", "any"),
        conflict=("conflict", "any"),
        test_only=("test_only", "any"),
    )
    groups["stratum"] = groups["collection"] + "/" + groups["severity"].astype(str)
    groups["tercile"] = groups.groupby("stratum")["area_fraction"].transform(_terciles)
    groups["may_be_tested"] = groups["has_mask"] & ~groups["conflict"]
    groups["may_be_held_out"] = groups["may_be_tested"] & ~groups["test_only"]
    return groups


def area_fraction(measures: dict[str, float] | None) -> float:
    """Lesion area over image area, from a case table's ``measures``; NaN without a lesion."""
    area = measures["area_fraction"] if isinstance(measures, dict) else None
    return np.nan if area is None else area


def _terciles(values: pd.Series) -> pd.Series:
    """0, 1 or 2; 3 without a measured lesion."""
    known = values.dropna()
    borders = known.quantile([1 / 3, 2 / 3]).to_numpy() if len(known) else np.empty(0)
    classes = np.searchsorted(borders, values.to_numpy(), side="left")
    return pd.Series(np.where(values.isna(), _NO_LESION, classes), index=values.index)


def drawn_order(groups: pd.DataFrame, seed: int, stream: str) -> pd.DataFrame:
    """Groups in random order, each with the share of its stratum's cases before it.

    Within a stratum the terciles of lesion size are interleaved in proportion, each in the order
    of its hashes, so that every prefix of the order represents all sizes.
    """
    draw = [integer_seed(seed, f"{stream} {group_id}") for group_id in groups.index]
    ordered = groups.assign(draw=draw).sort_values("draw")
    by_size = ordered.groupby(["stratum", "tercile"])["size"]
    middle = by_size.cumsum() - ordered["size"] / 2
    ordered = ordered.assign(place=middle / by_size.transform("sum"))
    ordered = ordered.sort_values(["place", "draw"])
    by_stratum = ordered.groupby("stratum")["size"]
    ordered["total"] = by_stratum.transform("sum")
    ordered["share_before"] = (by_stratum.cumsum() - ordered["size"]) / ordered["total"]
    return ordered
