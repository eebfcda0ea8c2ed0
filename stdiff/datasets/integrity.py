"""Contents of a collection and all of its problems, for `stdiff verify`.

A raw folder is checked by harmonizing it, so the report is what a run would find.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

from stdiff.birads.lexicon import PATHOLOGIES, VOCABULARY
from stdiff.datasets.dicom import BURNT_IN
from stdiff.datasets.harmonize import harmonize
from stdiff.datasets.patients import alike_patients
from stdiff.datasets.pixels import IMPLAUSIBLE, box_of, read_pixels
from stdiff.datasets.raw import RawCase
from stdiff.datasets.readers import read_raw
from stdiff.datasets.rows import Harmonization
from stdiff.near_duplicates import leaks
from stdiff.runtime.files import InputError
from stdiff.runtime.names import escaped
from stdiff.runtime.problem_kinds import by_kind
from stdiff.table.cases import read_cases, repeated_ids, verify_table, write_cases
from stdiff.table.parquet import read_parquet
from stdiff.table.streaming import iterate_rows
from stdiff.table.values import value_problems

COLUMNS = (
    *leaks.COLUMNS,
    *("birads", "shape", "orientation", "margin", "echo_pattern", "posterior_features"),
    *("calcifications", "annotated", "device", "lesion_count", "measures", "source_path"),
)
# Flags of raw files that contradict each other or hold values that no reader knows.
DEFECTS = (
    *("csv_size_mismatch", "bbox_mismatch", "side_mismatch", "mask_stretched"),
    *("unknown_term:", "unreadable_metadata:", IMPLAUSIBLE, BURNT_IN),
)
PICTURE_PX = 256


@dataclass(frozen=True)
class Integrity:
    """A collection or a case table, and its problems.

    Attributes:
        name: of the collection or table.
        cases: one row per usable image, columns :data:`COLUMNS`.
        pairs: images of one scene, columns :data:`stdiff.near_duplicates.leaks.PAIR_SCHEMA`.
        quarantine: ``source_path`` and ``reason`` of the files left out.
        problems: one line each; empty if none was found.
    """

    name: str
    cases: pd.DataFrame
    pairs: pd.DataFrame
    quarantine: pd.DataFrame
    problems: list[str]

    def text(self) -> str:
        """Counts by class, masks, sizes, devices, flags and near-duplicates; problems by kind."""
        lines = [f"{self.name}: {len(self.cases)} images, {len(self.quarantine)} left out"]
        lines += [f"  {what:<20}{found}" for what, found in self.counts() if found]
        if not self.problems:
            return "\n".join([*lines, "no problem found"])
        return "\n".join([*lines, f"{len(self.problems)} problem(s):", *by_kind(self.problems)])

    def counts(self) -> Iterator[tuple[str, str]]:
        """(quantity, counts as text) for each line of the summary."""
        cases = self.cases
        pathology = cases["pathology"].fillna("unknown").value_counts()
        order = [name for name in (*PATHOLOGIES, "unknown") if name in pathology]
        yield "pathology", _listed(pathology[order])
        lesions = cases["lesion_count"]
        masks = {
            "with a lesion": (lesions > 0).sum(),
            "with several": (lesions > 1).sum(),
            "lesion-free": (lesions == 0).sum(),
            "unlabelled": lesions.isna().sum(),
        }
        yield "masks", _listed(pd.Series(masks))
        if sizes := [cell for cell in cases["transform"] if cell is not None]:
            for what in ("width", "height"):
                values = [cell[f"native_{what}_px"] for cell in sizes]
                median = int(np.median(values))
                yield f"native {what}", f"{min(values)} to {max(values)} px, median {median}"
        patients = cases["patient_id"].dropna()
        if len(patients):
            yield "patients", f"{patients.nunique()} ({len(cases) - len(patients)} images without)"
        for name in VOCABULARY:
            annotated = cases["annotated"].map(
                lambda terms, name=name: terms is not None and name in terms
            )
            if name != "pathology" and annotated.any():
                yield name, f"annotated in {annotated.sum()} images"
        yield "devices", _listed(cases["device"].value_counts())
        flags = [flag for row in cases["flags"].dropna() for flag in row if ":" not in flag]
        yield "flags", _listed(pd.Series(flags, dtype=object).value_counts())
        twins = set(self.pairs["case_a"]) | set(self.pairs["case_b"])
        if twins:
            yield "near-duplicates", f"{len(self.pairs)} pairs of {len(twins)} images"


def inspect_raw(collection: str, raw: Path, table: Path, processes: int = 1) -> Integrity:
    """Inspect a raw collection; its case table (images of 256 px) is written to ``table``.

    Raises:
        InputError: a raw folder that cannot be read as the collection.
    """
    raw_cases = {case.case_id: case for case in read_raw(collection, raw)[0]}
    quarantine = table.with_name(f"{table.stem}_quarantine.parquet")
    how = Harmonization(PICTURE_PX)
    try:
        pairs = harmonize(collection, raw, table, quarantine, how=how, processes=processes)
    except InputError:
        if not quarantine.is_file():
            raise
        # No usable image: the quarantine says why.
        pairs = None
        write_cases([], table)
    found = found_in_run(collection, [table], pairs, read_parquet(quarantine).to_pandas())
    problems = [
        f"{case.source_path}: {text}"
        for case_id, flags in zip(found.cases["case_id"], found.cases["flags"], strict=True)
        for case in [raw_cases[case_id]]
        for text in _defects(case, flags)
    ]
    for row in iterate_rows(table):
        problems += [f"{row['source_path']}: {problem}" for problem in value_problems(row)]
    return replace(found, problems=sorted(found.problems + problems))


def inspect_tables(name: str, tables: Sequence[Path]) -> Integrity:
    """Inspect case tables as one.

    Raises:
        InputError: not a readable case table.
    """
    found = found_in_run(name, tables, None, None)
    problems = {problem for table in tables for problem in verify_table(table)}
    problems.update(repeated_ids(map(escaped, found.cases["case_id"])))
    return replace(found, problems=sorted([*problems, *found.problems]))


def found_in_run(
    name: str,
    tables: Sequence[Path],
    pairs: pd.DataFrame | None,
    quarantine: pd.DataFrame | None,
) -> Integrity:
    """Inspect a harmonized collection.

    Args:
        name: of the collection.
        tables: its case table or tables.
        pairs: near-duplicates of its run, from :func:`stdiff.near_duplicates.leaks.find_pairs`;
            by default those within the tables.
        quarantine: files left out of it, if known.
    """
    cases = read_cases(tables, COLUMNS)
    of_run = leaks.pairs_of_tables(tables, cases) if pairs is None else pairs
    known = set(cases["case_id"])
    ours = of_run[of_run["case_a"].isin(known) | of_run["case_b"].isin(known)]
    if quarantine is None:
        quarantine = pd.DataFrame(columns=["source_path", "reason"])
    problems = [f"{row.source_path}: {row.reason}" for row in quarantine.itertuples()]
    problems += [*_conflicts(cases, ours), *alike_patients(cases)]
    return Integrity(name, cases, ours, quarantine, sorted(problems))


def _listed(counts: pd.Series) -> str:
    """'benign 3, malignant 2'; zero counts are left out."""
    return ", ".join(f"{name} {count}" for name, count in counts.items() if count)


def _defects(case: RawCase, flags: list[str]) -> Iterator[str]:
    """The contradictions of one case, with the values in its files."""
    for flag in flags:
        if not flag.startswith(DEFECTS):
            continue
        text = flag
        if flag in ("csv_size_mismatch", "bbox_mismatch"):
            pixels = read_pixels(case)
            if flag == "csv_size_mismatch" and case.stated_size_px:
                (height, width), found = case.stated_size_px, pixels.picture.grey_HW.shape
                text += f": metadata say {width} x {height} px, the file is {found[1]} x {found[0]}"
            elif case.stated_box_px and pixels.mask_HW is not None:
                text += f": metadata say (left, top, right, bottom) {case.stated_box_px}, "
                text += f"the mask has {box_of(pixels.mask_HW)}"
        yield text


def _conflicts(cases: pd.DataFrame, pairs: pd.DataFrame) -> Iterator[str]:
    """Pairs of one scene in one table whose pathologies differ."""
    by_id = cases.drop_duplicates("case_id").set_index("case_id")
    within = pairs["case_a"].isin(by_id.index) & pairs["case_b"].isin(by_id.index)
    for pair in pairs[within].itertuples():
        one, other = by_id.loc[pair.case_a], by_id.loc[pair.case_b]
        known = pd.notna(one["pathology"]) and pd.notna(other["pathology"])
        if known and one["pathology"] != other["pathology"]:
            yield (
                f"{one['source_path']}: label_conflict: {one['pathology']}, but shows the scene of "
                f"{other['source_path']}, which is {other['pathology']} "
                f"(correlation {pair.correlation:.2f})"
            )
