"""The command line: one command for each pipeline step, without logic of its own.

Exit codes: 0 done; 1 wrong input, or the operating system refuses to read or write a file (one line
says which and why); 2 wrong usage; 130 stopped by SIGTERM or SIGINT. A stopped training has saved
its state and resumes when the same command is run again; any other stopped command leaves no
output.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

import stdiff
from stdiff.cli import corpus, data, downstream, evaluate, generate, masks, share, train
from stdiff.cli.options import expand, show_help
from stdiff.runtime.environment import check_environment
from stdiff.runtime.errors import InputError, os_error_line, writing
from stdiff.runtime.stopping import EXIT_STOPPED, Interrupted, sigterm_as_ctrl_c

# Commands import torch, pandas and the like inside their functions: `stdiff --help` and shell
# completion must be fast.
app = typer.Typer(
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Synthetic breast ultrasound from masks and BI-RADS terms; for research and teaching, "
    "not for diagnosis. An argument @FILE is replaced by the lines of FILE.",
)
for group in (data, train, masks, generate, corpus, downstream, evaluate, share):
    app.add_typer(group.app)


@app.callback()
def start(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="show the version and exit")] = False,
) -> None:
    """Show the version, or the help where no command is given."""
    if version:
        print(f"stdiff {stdiff.__version__}")
        raise typer.Exit
    show_help(context)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        # A name that this terminal cannot show ends no command.
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        with sigterm_as_ctrl_c():
            return _run(sys.argv[1:] if arguments is None else arguments)
    except typer.TyperException as error:  # wrong usage
        message = error.format_message().rstrip(".")
        context = getattr(error, "ctx", None)
        path = context.command_path if context else "stdiff"
        print(f"stdiff: error: {message}; see `{path} --help`", file=sys.stderr)
        return 2
    except InputError as error:
        print(f"stdiff: error: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"stdiff: error: {os_error_line(error)}", file=sys.stderr)
        return 1
    except Interrupted as stop:
        print(f"stdiff: {stop}", file=sys.stderr)
        return EXIT_STOPPED


def _run(arguments: Sequence[str]) -> int:
    """Run one command; what it prints is written before it counts as done."""
    check_environment()
    command = typer.main.get_command(app)
    try:
        code = command.main(expand(arguments), prog_name="stdiff", standalone_mode=False) or 0
    finally:
        with writing(Path("standard output")):
            sys.stdout.flush()
    if code == EXIT_STOPPED:
        print("stdiff: stopped; nothing unfinished is kept", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
