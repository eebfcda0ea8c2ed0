"""``stdiff masks``: fit, sample, compare and show lesion masks."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from stdiff.cli.options import (
    Cases,
    Device,
    Fold,
    Labels,
    OptionalCases,
    OptionalSplits,
    Seed,
    Splits,
    TableArguments,
    Threads,
    group,
    register,
)
from stdiff.runtime.errors import InputError
from stdiff.table.label_budget import ALL_LABELS

app = typer.Typer()
masks = group(app, "masks", "Lesion masks: fit a prior, sample, compare with real ones, show.")
command = partial(register, masks, "Masks")


@command("stdiff masks fit --cases busi.parquet --splits splits.parquet --out prior.json")
def fit(
    cases: Cases,
    splits: Splits,
    out: Annotated[Path, typer.Option(help="prior (JSON)")],
    fold: Fold = 0,
    labels: Labels = ALL_LABELS,
    about: Annotated[str | None, typer.Option(help="description kept in the file")] = None,
    summary: Annotated[
        bool, typer.Option("--summary", help="leave out the numbers of single masks")
    ] = False,
) -> None:
    """Fit the clinical prior to labelled training masks."""
    from stdiff.corpus.plan import training_bank
    from stdiff.masks.fitting import fit_prior
    from stdiff.table.cohort import CohortFiles

    bank = training_bank(CohortFiles(cases, splits, fold), labels)
    names = " and ".join(table.stem for table in cases)
    about = about or f"{labels} of the labelled training masks of {names}"
    about += f", {bank.width_px} x {bank.height_px} px"
    fit_prior(bank, about, keep_scores=not summary).write(out)
    print(
        f"{out}: fitted to {len(bank.masks)} masks ({about}). Next: `stdiff masks sample --prior "
        f"{out}`"
    )


@command(
    'stdiff masks sample --count 100 --where "margin=spiculated, area_fraction=0.02..0.1" '
    "--out masks.parquet"
)
def sample(
    count: Annotated[int, typer.Option(help="masks")],
    out: Annotated[Path, typer.Option(help="case table without images (Parquet)")],
    prior: Annotated[Path | None, typer.Option(help="prior; default: the package's")] = None,
    kind: Annotated[
        str, typer.Option(help="curvature, bank or ellipse, or e.g. bank=1,curvature=3")
    ] = "curvature",
    cases: OptionalCases = None,
    splits: OptionalSplits = None,
    fold: Fold = 0,
    labels: Labels = ALL_LABELS,
    size: Annotated[int, typer.Option(help="side of the masks, px")] = 256,
    where: Annotated[
        str, typer.Option(help='e.g. "margin=spiculated, area_fraction=0.02..0.1"')
    ] = "",
    balance: Annotated[str, typer.Option(help='e.g. "pathology=1, margin=0.5"')] = "",
    seed: Seed = 0,
) -> None:
    """Draw new masks into a case table without images; kind bank needs cases and splits."""
    from stdiff.birads.query import parse_query
    from stdiff.corpus.plan import training_bank, write_masks
    from stdiff.masks.prior import Prior
    from stdiff.masks.sources import mask_source
    from stdiff.table.cohort import CohortFiles

    weights, strengths = _numbers("kind", kind), _numbers("balance", balance)
    bank = None
    if cases and splits:
        bank = training_bank(CohortFiles(cases, splits, fold), labels)
    source = mask_source(
        weights,
        Prior.load(prior) if prior else Prior.default(),
        size,
        size,
        bank=bank,
        query=parse_query(where),
        balance=strengths,
    )
    write_masks(source, out, corpus=out.stem, count=count, seed=seed)
    print(
        f"{out}: {count} masks of {size} x {size} px. Look at them: stdiff masks show {out} --out "
        f"masks.png. Next: `stdiff generate --plan {out}`"
    )


@command(
    "stdiff masks evaluate masks.parquet --cases busi.parquet --splits splits.parquet "
    "--out realism.json"
)
def evaluate(
    tables: TableArguments,
    cases: Cases,
    splits: Splits,
    out: Annotated[Path, typer.Option(help="JSON")],
    fold: Fold = 0,
    labels: Labels = ALL_LABELS,
    at_most: Annotated[int, typer.Option(help="masks of each kind")] = 1000,
    picture: Annotated[
        Path | None, typer.Option(help="64 real masks and 64 of the first table (PNG)")
    ] = None,
    seed: Seed = 0,
    threads: Threads = None,
    device: Device = None,
) -> None:
    """Compare masks with real ones that are not training cases."""
    from stdiff.evaluation.mask_evaluation import evaluate_masks, held_out_masks, masks_of
    from stdiff.report.mask_figures import side_by_side
    from stdiff.table.cohort import CohortFiles

    cohort = CohortFiles(cases, splits, fold)
    print(evaluate_masks(tables, cohort=cohort, labels=labels, at_most=at_most, seed=seed, out=out))
    if picture:
        real, _ = held_out_masks(cohort)
        side_by_side(real, masks_of(tables[0], len(real)), tables[0].stem, picture)


@command("stdiff masks show masks.parquet --out sheet.png")
def show(
    table: Annotated[Path, typer.Argument(help="table of masks")],
    out: Annotated[Path, typer.Option(help="PNG")],
    count: Annotated[int, typer.Option(help="masks")] = 64,
) -> None:
    """Contact sheet of the first masks of a table."""
    from stdiff.report.mask_figures import contact_sheet
    from stdiff.table.cases import read_cases

    masks = read_cases([table], ("mask", "caption"))
    contact_sheet(masks[:count], out)
    print(f"{out}: the first {min(count, len(masks))} of {len(masks)} masks")


def _numbers(option: str, text: str) -> dict[str, float]:
    """{name: number} of "a=1, b=2", or {name: 1} of "a"."""
    pairs = (part.partition("=") for part in text.split(",") if part.strip())
    try:
        return {name.strip(): float(value) if equals else 1.0 for name, equals, value in pairs}
    except ValueError as error:
        raise InputError(f"--{option} {text!r}: {error}; expected e.g. name=1, name=0.5") from error
