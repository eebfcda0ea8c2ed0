"""The plan of a corpus: mask, findings, caption and seed of every image to generate.

A plan is a case table whose images are null. Row i depends only on the corpus seed, i and the
mask source, so a plan of N rows is the beginning of every larger one.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from tqdm import tqdm

from stdiff.birads.lexicon import VOCABULARY, render
from stdiff.birads.query import parse_query
from stdiff.birads.shape import count_lesions
from stdiff.masks.bank import MaskBank
from stdiff.masks.fitting import fit_prior
from stdiff.masks.prior import Prior
from stdiff.masks.sampling import MaskSource
from stdiff.masks.sources import mask_source
from stdiff.runtime.files import InputError, sha256_bytes
from stdiff.runtime.randomness import generator, integer_seed
from stdiff.table.cases import SCHEMA, case_row, png_cell, write_cases
from stdiff.table.cohort import CohortFiles
from stdiff.table.label_budget import LabelBudget
from stdiff.table.parquet import open_parquet

# Filled in when the image is generated and filtered; the plan holds all other columns.
MADE_COLUMNS = ("image", "flags", "model_sha256", "sampler", "plan_sha256", "filter")
PLANNED_COLUMNS = tuple(name for name in SCHEMA.names if name not in MADE_COLUMNS)


def make_plan(
    source: MaskSource,
    *,
    corpus: str,
    count: int,
    seed: int,
    first: int = 0,
    backgrounds: Sequence[dict[str, Any]] = (),
) -> Iterator[dict[str, Any]]:
    """Yield rows first … first + count - 1 of a plan.

    Args:
        source: where masks and findings come from.
        corpus: name of the corpus; case ids are ``<corpus>/00000042``.
        count: number of images.
        seed: the corpus seed, >= 0.
        first: index of the first row.
        backgrounds: cells of lesion-free images to put lesions into; none = generated ones.
    """
    for index in range(first, first + count):
        row = plan_row(source, corpus, seed, index)
        if backgrounds:
            drawn = generator(seed, "background", index).integers(len(backgrounds))
            row["background"] = backgrounds[drawn]
        yield row


def plan_row(source: MaskSource, corpus: str, seed: int, index: int) -> dict[str, Any]:
    """Row ``index`` of a plan (see :func:`make_plan`)."""
    sampled = source.sample(generator(seed, "mask", index))
    height_px, width_px = sampled.mask.shape
    return case_row(
        case_id=f"{corpus}/{index:08d}",
        collection=corpus,
        mask=png_cell(sampled.mask, f"{index:08d}_mask"),
        height_px=height_px,
        width_px=width_px,
        **sampled.findings.as_row(),
        annotated=[],
        caption=render(sampled.findings),
        lesion_count=count_lesions(sampled.mask),
        seed=integer_seed(seed, "image", index),
        sample_index=index,
        mask_origin=sampled.mask_origin,
    )


def write_plan(
    cohort: CohortFiles,
    out: Path,
    *,
    corpus: str,
    weights: Mapping[str, float],
    labels: LabelBudget,
    count: int,
    seed: int,
    first: int = 0,
    prior: Path | None = None,
    where: str = "",
    balance: Mapping[str, float] | None = None,
    kept_backgrounds: bool = False,
) -> None:
    """Write a plan whose masks come from the labelled training cases, in constant memory.

    Args:
        cohort: real cases and their splits.
        out: plan to write.
        corpus: name of the corpus.
        weights: kind of mask → weight, see :func:`stdiff.masks.sources.mask_source`.
        labels: the label budget of the arm.
        count: number of images, >= 1.
        seed: corpus seed, >= 0.
        first: index of the first row, >= 0; > 0 writes a later part of the plan.
        prior: fitted to the same cases; None = fit it here if needed.
        where: query, see :func:`stdiff.birads.query.parse_query`.
        balance: see :func:`stdiff.masks.findings.balanced_probabilities`.
        kept_backgrounds: put lesions into real lesion-free training images.

    Raises:
        InputError: no labelled lesion to sample, unusable masks, or numbers out of range.
    """
    bank = training_bank(cohort, labels)
    known = Prior.load(prior) if prior else None
    if known is None and weights.get("curvature"):
        known = fit_prior(bank, about=corpus)
    source = mask_source(
        weights,
        known,
        bank.height_px,
        bank.width_px,
        bank=bank,
        query=parse_query(where),
        balance=balance,
    )
    backgrounds = []
    if kept_backgrounds:
        backgrounds = lesion_free_cells(cohort, labels)
    options = {"corpus": corpus, "count": count, "seed": seed, "first": first}
    write_masks(source, out, **options, backgrounds=backgrounds)


def lesion_free_cells(cohort: CohortFiles, labels: LabelBudget) -> list[dict[str, Any]]:
    """Image cells of the training images known to be lesion-free, named by their case.

    Raises:
        InputError: there is none.
    """
    columns = ("case_id", "image", "mask", "lesion_count")
    rows = cohort.read(columns).lesion_free_training(labels)
    return [
        {"bytes": row.image["bytes"], "path": f"{row.case_id}.png"} for row in rows.itertuples()
    ]


def training_bank(cohort: CohortFiles, labels: LabelBudget) -> MaskBank:
    """The labelled training masks of a label budget."""
    columns = ("case_id", "mask", "lesion_count", *VOCABULARY)
    return MaskBank(cohort.read(columns).labelled_training(labels))


def write_masks(
    source: MaskSource,
    out: Path,
    *,
    corpus: str,
    count: int,
    seed: int,
    first: int = 0,
    backgrounds: Sequence[dict[str, Any]] = (),
) -> None:
    """Write rows first … first + count - 1 of a plan, streaming.

    Raises:
        InputError: a count below 1, or a seed or first row below 0.
    """
    if count < 1 or seed < 0 or first < 0:
        raise InputError(
            f"count {count}, seed {seed}, first {first}: expected count >= 1, seed >= 0 and first "
            ">= 0"
        )
    planned = make_plan(
        source, corpus=corpus, count=count, seed=seed, first=first, backgrounds=backgrounds
    )
    with tqdm(planned, total=count, desc="masks", unit="mask", mininterval=1) as rows:
        write_cases(rows, out)


def count_plan(plan: Path) -> int:
    """Number of rows of a plan, or of all its parts."""
    count = 0
    for part in _parts(plan):
        with _open(part) as file:
            count += file.metadata.num_rows
    return count


def read_plan(plan: Path, start: int, stop: int) -> list[dict[str, Any]]:
    """Rows start … stop - 1 of a plan (fewer at its end), reading only the row groups needed.

    Args:
        plan: a file, or a folder with the parts of one plan, ordered by name.
        start: position of the first row, from 0.
        stop: position after the last row.

    Raises:
        InputError: a file is missing, damaged or no case table.
    """
    rows: list[dict[str, Any]] = []
    first = 0
    for part in _parts(plan):
        with _open(part) as file:
            for group in range(file.num_row_groups):
                count = file.metadata.row_group(group).num_rows
                if first < stop and first + count > start:
                    found = file.read_row_group(group).slice(max(0, start - first))
                    rows += found.slice(0, stop - start - len(rows)).to_pylist()
                first += count
    return rows


def _parts(plan: Path) -> list[Path]:
    plan = Path(plan)
    if not plan.is_dir():
        return [plan]
    if not (parts := sorted(plan.glob("[!.]*.parquet"))):
        raise InputError(f"{plan}: holds no part of a plan; make them with `stdiff plan --first`")
    return parts


def row_sha256(row: dict[str, Any]) -> str:
    """Hex SHA-256 of a plan's row (column ``plan_sha256``); it does not change as plans grow."""
    planned = {name: row[name] for name in PLANNED_COLUMNS}
    for name in ("mask", "background"):
        planned[name] = row[name] and sha256_bytes(row[name]["bytes"])
    return hashlib.sha256(json.dumps(planned, sort_keys=True).encode()).hexdigest()


def _open(plan: Path) -> AbstractContextManager[pq.ParquetFile]:
    return open_parquet(plan, kind="plan", hint="make it with `stdiff plan`", schema=SCHEMA)
