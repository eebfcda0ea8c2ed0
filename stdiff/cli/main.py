"""The command line: one command for each pipeline step, without logic of its own.

Exit codes: 0 done; 1 wrong input (one line says how to correct it); 2 wrong usage; 130 stopped by
SIGTERM or SIGINT. A stopped training has saved its state and resumes when the same command is run
again; any other stopped command leaves no output.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Sequence
from typing import Annotated

import typer

import stdiff
from stdiff.cli import corpus, data, downstream, evaluate, generate, masks, share, train
from stdiff.cli.options import expand, show_help
from stdiff.runtime.errors import InputError
from stdiff.runtime.stopping import EXIT_STOPPED, Interrupted

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
    command = typer.main.get_command(app)
    try:
        words = expand(sys.argv[1:] if arguments is None else arguments)
        return command.main(words, prog_name="stdiff", standalone_mode=False) or 0
    except typer.TyperException as error:  # wrong usage
        message = error.format_message().rstrip(".")
        context = getattr(error, "ctx", None)
        path = context.command_path if context else "stdiff"
        print(f"stdiff: error: {message}; see `{path} --help`", file=sys.stderr)
        return 2
    except (InputError, OSError) as error:
        print(f"stdiff: error: {error}", file=sys.stderr)
        return 1
    except Interrupted as stop:
        print(f"stdiff: {stop}", file=sys.stderr)
        return EXIT_STOPPED


if __name__ == "__main__":
    sys.exit(main())
