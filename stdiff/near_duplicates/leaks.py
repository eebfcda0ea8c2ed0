"""Which cases may not be parted: patients, near-duplicates, and crops of one another's frames.

Works on the rows of one case table or of all tables of a run; pixels are not read again, only the
fingerprints that the harmonizer took of the native frames.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator

import numpy as np
import pandas as pd
import pyarrow as pa

from stdiff.near_duplicates.crops import crop_pairs
from stdiff.near_duplicates.duplicates import duplicate_pairs, joined
from stdiff.near_duplicates.fingerprint import fingerprint_array

# What the search reads of a case table.
COLUMNS = (
    *("case_id", "collection", "pathology", "patient_id", "group_id"),
    *("flags", "fingerprint", "transform"),
)
PAIR_SCHEMA = pa.schema(
    [
        ("case_a", pa.string()),
        ("case_b", pa.string()),
        # "frame": both show all of it; "crop": one is a part of the other; "lesion crop": case_a is
        # a lesion cut out of case_b.
        ("kind", pa.string()),
        ("correlation", pa.float32()),
    ]
)
CROP_FLAG = "lesion_crop"


def find_pairs(cases: pd.DataFrame, processes: int = 1) -> pd.DataFrame:
    """Pairs of cases that show one scene, sorted; columns as :data:`PAIR_SCHEMA`.

    Args:
        cases: rows with the columns :data:`COLUMNS`; one without a fingerprint matches nothing.
        processes: worker processes; the result does not depend on it.
    """
    with_pixels = cases[cases["fingerprint"].notna()].sort_values("case_id")
    is_crop = np.array([CROP_FLAG in flags for flags in with_pixels["flags"]], dtype=bool)
    found = []
    for part in (with_pixels[~is_crop], with_pixels[is_crop]):
        pairs = duplicate_pairs(fingerprint_array(part["fingerprint"].to_list()), processes)
        found.append(_named(pairs, part, "i", part, "j"))
    crops, frames = with_pixels[is_crop], with_pixels[~is_crop]
    pairs = crop_pairs(*_with_native_sizes(crops), *_with_native_sizes(frames), processes)
    found.append(_named(pairs.assign(kind="lesion crop"), crops, "crop", frames, "frame"))
    table = pd.concat(found, ignore_index=True)
    return table.sort_values(["case_a", "case_b"], ignore_index=True)


def clusters_of(cases: pd.DataFrame, pairs: pd.DataFrame) -> np.ndarray:
    """(N,) int cluster of each row; rows that pairs link, directly or not, share one."""
    row_of = {case_id: row for row, case_id in enumerate(cases["case_id"])}
    links = [(row_of[a], row_of[b]) for a, b in zip(pairs["case_a"], pairs["case_b"], strict=True)]
    return joined(len(cases), np.array(links, dtype=int).reshape(-1, 2))


def group_ids(cases: pd.DataFrame, clusters: np.ndarray, named_by: str = "case_id") -> np.ndarray:
    """(N,) name of each row's group: the union of table groups, patients and clusters.

    The name is the smallest value of the column ``named_by`` in the group.
    """
    # A patient's number means something within its collection only.
    patients = [
        (collection, patient) if isinstance(patient, str) else None
        for collection, patient in zip(cases["collection"], cases["patient_id"], strict=True)
    ]
    links = [
        link for keys in (cases["group_id"], patients, clusters) for link in _links_to_first(keys)
    ]
    component = pd.Series(joined(len(cases), np.array(links).reshape(-1, 2)), index=cases.index)
    return cases[named_by].groupby(component).transform("min").to_numpy()


def label_conflicts(pathology: pd.Series, clusters: np.ndarray) -> np.ndarray:
    """(N,) bool, True where images of one scene carry more than one pathology."""
    return (pathology.groupby(clusters).transform("nunique") > 1).to_numpy()


def _with_native_sizes(cases: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """Fingerprints (N, side, side) and native (height, width) in pixels (N, 2)."""
    native = [
        (cell["native_height_px"], cell["native_width_px"]) for cell in cases["transform"].to_list()
    ]
    fingerprints = fingerprint_array(cases["fingerprint"].to_list())
    return fingerprints, np.array(native, dtype=int).reshape(-1, 2)


def _named(
    pairs: pd.DataFrame, first: pd.DataFrame, first_row: str, second: pd.DataFrame, second_row: str
) -> pd.DataFrame:
    """Pairs of row numbers as pairs of case ids."""
    return pd.DataFrame(
        {
            "case_a": first["case_id"].to_numpy()[pairs[first_row]],
            "case_b": second["case_id"].to_numpy()[pairs[second_row]],
            "kind": pairs["kind"],
            "correlation": pairs["correlation"],
        }
    )


def _links_to_first(keys: Iterable[Hashable]) -> Iterator[tuple[int, int]]:
    """Links each row to the first one of the same key; a missing key links nothing."""
    first: dict[Hashable, int] = {}
    for row, key in enumerate(keys):
        if key is not None:
            yield row, first.setdefault(key, row)
