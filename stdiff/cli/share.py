"""Export, report and summary."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from stdiff.cli.options import Fold, Layout, OptionalSplits, Run, TableArguments, register

app = typer.Typer()
command = partial(register, app, "Share")


@command("stdiff export busi.parquet --as nnunet --to Dataset101_BUSI --splits splits.parquet")
def export(
    tables: TableArguments,
    to: Annotated[Path, typer.Option(help="new folder; for nnunet: DatasetNNN_Name")],
    layout: Annotated[Layout, typer.Option("--as", help="format of the folder")] = "folders",
    splits: OptionalSplits = None,
    fold: Fold = 0,
    rejected_too: Annotated[
        bool, typer.Option("--rejected-too", help="also the images that the filter rejected")
    ] = False,
    labelled_only: Annotated[
        bool, typer.Option("--labelled-only", help="leave out cases without a mask")
    ] = False,
) -> None:
    """Case tables or shards → files for another tool; splits keep validation and test apart."""
    from stdiff.export.export import export_cases
    from stdiff.export.selection import Choice

    options = {"rejected_too": rejected_too, "labelled_only": labelled_only}
    choice = Choice(tables, splits=splits, fold=fold, **options)
    export_cases(choice, to, layout)
    print(f"{to}: {choice.chosen} cases as {layout}. {choice.left_out}".rstrip())


@command("stdiff report results/demo --out report")
def report(run: Run, out: Annotated[Path, typer.Option(help="folder of the page")]) -> None:
    """One HTML page of a run."""
    from stdiff.report.page import write_report

    write_report(run, out)
    print(f"{out / 'index.html'}: the report of {run}, self-contained with its folder")


@command("stdiff summary results/demo")
def summary(
    run: Run,
    markdown: Annotated[bool, typer.Option("--markdown", help="all figures, as Markdown")] = False,
) -> None:
    """Print Dice by arm of a finished run."""
    from stdiff.report.markdown import results_markdown
    from stdiff.report.page import summary_text

    print(results_markdown(run) if markdown else summary_text(run))
