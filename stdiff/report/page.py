"""One self-contained HTML page of a run, and its summary for the terminal."""

from __future__ import annotations

from pathlib import Path

from stdiff.config.run import Config, load_config
from stdiff.evaluation.gain import gain_table_text
from stdiff.report.headlines import headlines
from stdiff.report.pages import FIGURES, PAGE, refuse_other_folder, render_page
from stdiff.runtime.files import InputError, atomic_write, read_json, write_text


def write_report(run: Path, out: Path) -> None:
    """Write ``index.html`` and ``figures/*.png`` of a run.

    Args:
        run: Run folder, ``results/<run>``.
        out: Folder to write atomically; an earlier report is replaced.

    Raises:
        InputError: ``run`` is not a run folder, ``out`` holds anything but a report, or a file
            of the run cannot be read.
    """
    # Imported here: it needs torch, for which `stdiff summary` would make a person wait.
    from stdiff.report.contents import read_contents

    run, out = Path(run), Path(out)
    config = _run_config(run)
    refuse_other_folder(out)
    with atomic_write(out) as temporary:
        (temporary / FIGURES).mkdir(parents=True)
        contents = read_contents(run, config, temporary / FIGURES)
        write_text(temporary / PAGE, render_page("page.html.j2", contents))


def summary_text(run: Path) -> str:
    """Dice by arm and gains as a table, then the findings in words and the path of the report.

    Raises:
        InputError: the run has no gains yet.
    """
    run = Path(run)
    gain, page = run / "gain.json", run / "report" / PAGE
    if not gain.is_file():
        raise InputError(f"{gain}: no such file; make it with `snakemake` or `stdiff gain`")
    result = read_json(gain)
    where = f"Report: {page}"
    if not page.is_file():
        where = f"No report yet; make it with `stdiff report {run} --out {page.parent}`"
    return "\n".join([gain_table_text(result), "", *headlines(result, _run_config(run)), where])


def _run_config(run: Path) -> Config:
    if not (run / "config.yaml").is_file():
        raise InputError(
            f"{run}: not a run folder (no config.yaml); expected one that `snakemake` made, "
            "e.g. results/demo"
        )
    return load_config(run / "config.yaml")
