"""Commands from raw collections to case tables and splits."""

from __future__ import annotations

import re
import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from stdiff.cli.options import (
    Cases,
    Collection,
    ConfigFile,
    Fit,
    Processes,
    Published,
    Seed,
    Splits,
    TableArguments,
    UsageError,
    read_run,
    register,
)
from stdiff.runtime.errors import InputError

app = typer.Typer()
command = partial(register, app, "Data")

Raw = Annotated[Path, typer.Argument(help="raw folder of the collection")]


@command("stdiff init data --out config/mine.yaml")
def init(
    folder: Annotated[Path, typer.Argument(help="raw collections, or your own images/ and masks/")],
    out: Annotated[
        Path | None, typer.Option(help="configuration to write; default: config/FOLDER.yaml")
    ] = None,
    interactive: Annotated[
        bool, typer.Option("--interactive", help="ask for the name and image size of the run")
    ] = False,
) -> None:
    """Write a commented configuration for the data in a folder and for this machine."""
    from stdiff.config.suggest import suggest_config
    from stdiff.datasets.recognise import recognise
    from stdiff.runtime.files import write_text
    from stdiff.runtime.machine import this_machine

    root = folder.resolve()
    run = re.sub(r"[^A-Za-z0-9_-]+", "_", out.stem if out else root.name).strip("_-") or "run"
    out = out or Path("config") / f"{run}.yaml"
    if out.exists():
        raise InputError(f"{out}: exists and is not overwritten; give another name with --out")
    found, notes = recognise(root)
    machine = this_machine()
    for line in (*(f"{one.name}: {one}" for one in found), *notes, f"this machine: {machine}"):
        print(line)
    size_px = None
    if interactive:
        run = typer.prompt("name of the run", default=run)
        size_px = typer.prompt("side of the images, px (0: by machine)", type=int, default=0)
    text, next_command, estimate = suggest_config(
        found, machine, root, out, run=run, size_px=size_px or None
    )
    write_text(out, text)
    print(f"wrote {out}. Next:\n  {next_command}\n{estimate}")


@command("stdiff config --file config/demo.yaml --out config.yaml")
def config(
    out: Annotated[Path, typer.Option(help="merged configuration (YAML)")],
    file: Annotated[Path | None, typer.Option(help="YAML file")] = None,
    json: Annotated[str | None, typer.Option(help="the configuration as JSON")] = None,
    networks: Annotated[
        bool, typer.Option("--networks", help="also try a training step of every segmenter")
    ] = False,
) -> None:
    """Check a configuration and write it with all defaults filled in."""
    from json import JSONDecodeError, loads

    from stdiff.config.run import dump_config, load_config, parse_config
    from stdiff.runtime.files import write_text

    if (file is None) == (json is None):
        raise UsageError("`config` needs either --file or --json")
    try:
        found = load_config(file) if file else parse_config(loads(json or ""))
    except (JSONDecodeError, RecursionError) as error:
        raise InputError(f"--json: {json[:60]!r} is not JSON ({error})") from error
    if networks:
        from stdiff.downstream.trial import check_networks

        check_networks(found)
    write_text(out, dump_config(found))
    # For people; scripts and runs check many files and want to hear of mistakes only.
    if sys.stdout.isatty():
        print(
            f"{out}: the configuration of run {found.run}, all defaults filled in. Next: snakemake "
            f"--cores all --configfile {out}"
        )


@command("stdiff phantom --out phantom --cases 160")
def phantom(
    out: Annotated[Path, typer.Option(help="folder")],
    cases: Annotated[int, typer.Option(help="images in each of BUSI and BUS-BRA")],
    size: Annotated[int, typer.Option(help="nominal side of the raw images, px")] = 256,
    seed: Seed = 0,
) -> None:
    """Simulate raw BUSI, BUS-BRA and BUS-CoT folders."""
    from stdiff.simulation.collections import make_phantom

    make_phantom(out, cases, seed, size)
    print(
        f"{out}: simulated BUSI and BUS-BRA of {cases} images each, BUS-CoT of a third of that. "
        f"Next: stdiff harmonize busi {out} --out busi.parquet"
    )


@command("stdiff fetch bus_bra --to data")
def fetch(
    collection: Published,
    to: Annotated[Path, typer.Option(help="the collection's folder is made in this one")],
    archive: Annotated[
        list[Path] | None,
        typer.Option(help="unpack this file, download nothing; repeat it for a second file"),
    ] = None,
) -> None:
    """Download or unpack a published collection; resumes when run again."""
    from stdiff.fetching.fetch import fetch

    fetch(collection, to, archive or None)


@command("stdiff harmonize bus_bra data --out bus_bra.parquet --size 256 --processes 2")
def harmonize(
    collection: Collection,
    raw: Raw,
    out: Annotated[Path, typer.Option(help="case table (Parquet)")],
    quarantine: Annotated[
        Path | None, typer.Option(help="table of the files left out, with reasons")
    ] = None,
    size: Annotated[int, typer.Option(help="side of the square output images, px")] = 256,
    fit: Annotated[Fit, typer.Option(help="how a rectangle becomes a square")] = "stretch",
    crop_sector: Annotated[
        bool, typer.Option("--crop-sector", help="cut off borders, text and scales")
    ] = False,
    inpaint_marks: Annotated[
        bool, typer.Option("--inpaint-marks", help="paint over burnt-in callipers and text")
    ] = False,
    limit: Annotated[
        int | None, typer.Option(help="number of images, evenly spaced over the ids")
    ] = None,
    drop_sources: Annotated[
        list[str] | None, typer.Option(help="leave out images taken from these collections")
    ] = None,
    processes: Processes = 1,
) -> None:
    """Raw collection → case table."""
    from stdiff.datasets.harmonize import harmonize, summary
    from stdiff.datasets.rows import Harmonization

    quarantine = quarantine or out.with_name(f"{out.stem}_quarantine.parquet")
    harmonize(
        collection,
        raw,
        out,
        quarantine,
        how=Harmonization(size, fit, crop_sector, inpaint_marks),
        limit=limit,
        drop_sources=tuple(drop_sources or ()),
        processes=processes,
    )
    print(summary(out, quarantine))


@command("stdiff verify data --collection bus_bra --page check")
def verify(
    path: Annotated[Path, typer.Argument(help="case table, or raw folder with --collection")],
    collection: Annotated[Collection | None, typer.Option()] = None,
    page: Annotated[Path | None, typer.Option(help="write a page with pictures here")] = None,
    processes: Processes = 1,
) -> int:
    """Count the problems of a case table or raw folder by kind; exit code 1 if there is any.

    The page lists every one.
    """
    from stdiff.datasets.integrity import inspect_raw, inspect_tables
    from stdiff.table.shard_list import tables_in

    with tempfile.TemporaryDirectory() as folder:
        tables = [Path(folder) / "cases.parquet"] if collection else tables_in(path)
        if collection:
            found = inspect_raw(collection, path, tables[0], processes)
        else:
            found = inspect_tables(str(path), tables)
        print(found.text())
        if page:
            from stdiff.report.collections import write_integrity_page

            write_integrity_page(found, tables, path, page)
            print(f"page: {page / 'index.html'}")
    return 1 if found.problems else 0


@command("stdiff split busi.parquet bus_bra.parquet --out splits.parquet --test 0.2")
def split(
    tables: TableArguments,
    out: Annotated[Path, typer.Option(help="splits table (Parquet)")],
    test: Annotated[float, typer.Option(help="hold-out: test fraction")] = 0.2,
    validation: Annotated[float, typer.Option(help="validation fraction")] = 0.1,
    folds: Annotated[
        int | None, typer.Option(help="k-fold instead of a hold-out: number of folds")
    ] = None,
    published: Annotated[
        Path | None, typer.Option(help="take the test folds of BUS-BRA's 5-fold-cv.csv")
    ] = None,
    test_only: Annotated[
        list[str] | None, typer.Option(help="collections that no training stage may see")
    ] = None,
    duplicates: Annotated[
        Path | None, typer.Option(help="write a table of the near-duplicate pairs here")
    ] = None,
    processes: Processes = 1,
    seed: Seed = 0,
) -> None:
    """Training, validation and test sets by patient and near-duplicate group."""
    from stdiff.splitting.splits import split_tables

    counts = split_tables(
        tables,
        out,
        seed=seed,
        validation=validation,
        test=test,
        folds=folds,
        published=published,
        test_only=test_only or [],
        duplicates=duplicates,
        processes=processes,
    )
    print(f"{out}: {counts}. Next: `stdiff train autoencoder --splits {out}`")


@command("stdiff check --config config.yaml --cases busi.parquet --splits splits.parquet")
def check(config_file: ConfigFile, cases: Cases, splits: Splits) -> None:
    """Check that a run has enough images for its configuration, before anything is trained."""
    from stdiff.evaluation.before_training import check_numbers

    check_numbers(*read_run(config_file, cases, splits))
