"""How commands are registered, the options they share, and the arguments typer cannot parse."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from stdiff.runtime.environment import world_size
from stdiff.table.label_budget import LabelBudget

if TYPE_CHECKING:
    from stdiff.config.run import Config
    from stdiff.table.cohort import CohortFiles

# Copies of names in modules that are slow to import; a test compares them.
Published = Literal["busi", "bus_bra", "bus_cot", "breast", "bus_uclm"]
Collection = Literal["busi", "bus_bra", "bus_cot", "breast", "bus_uclm", "folder"]
Fit = Literal["stretch", "pad", "crop"]
Layout = Literal["folders", "nnunet", "monai", "huggingface"]
Target = Literal["pathology", "birads"]

# Options that take several values after one another: `--cases a.parquet b.parquet`.
SEVERAL_VALUES = frozenset({"--cases", "--corpus", "--drop-sources", "--test-only"})


class UsageError(typer.TyperException):
    """Arguments that do not go together, or cannot be read."""


def register(
    app: typer.Typer, panel: str, example: str, name: str | None = None
) -> Callable[[Callable[..., int | None]], Callable[..., int | None]]:
    """Decorator that makes a function a command; its docstring is the help text.

    Args:
        app: the application or group it belongs to.
        panel: heading in ``stdiff --help``.
        example: a complete command line, shown below the options.
        name: of the command, where it differs from the function's.
    """
    return app.command(name, rich_help_panel=panel, epilog=f"Example: {example}")


def show_help(context: typer.Context) -> None:
    """Print the help of a group of commands that is called without one."""
    if context.invoked_subcommand is None:
        print(context.get_help())


def group(app: typer.Typer, name: str, about: str) -> typer.Typer:
    """A group of commands below ``app``, such as ``stdiff masks``; alone it prints its help."""
    commands = typer.Typer(invoke_without_command=True, callback=show_help)
    app.add_typer(commands, name=name, help=about, rich_help_panel="Generate")
    return commands


def expand(arguments: Iterable[str]) -> list[str]:
    """Arguments as typer parses them.

    ``@FILE`` becomes the lines of FILE, and ``--cases A B`` becomes ``--cases A --cases B``.

    Raises:
        UsageError: FILE cannot be read.
    """
    words: list[str] = []
    for argument in arguments:
        words += _lines(argument[1:]) if argument.startswith("@") else [argument]
    expanded: list[str] = []
    repeated: list[str] = []
    for word in words:
        if word.startswith("-"):
            repeated = [word] if word in SEVERAL_VALUES else []
            expanded += [] if repeated else [word]
        else:
            expanded += [*repeated, word]
    return expanded


def _lines(file: str) -> list[str]:
    try:
        return Path(file).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"@{file}: expected a text file of arguments ({error})") from None


def read_run(config_file: Path, cases: Sequence[Path], splits: Path) -> tuple[Config, CohortFiles]:
    """The configuration, and the cohort at its fold."""
    from stdiff.config.run import load_config
    from stdiff.table.cohort import CohortFiles

    config = load_config(config_file)
    return config, CohortFiles(cases, splits, config.split.fold)


def _duration_s(text: str) -> float:
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([smh]?)", str(text).strip())
    if not match:
        raise typer.BadParameter(f"{text!r} is not a duration; e.g. 90s, 9m or 2h")
    return float(match[1]) * {"": 1, "s": 1, "m": 60, "h": 3600}[match[2]]


def _label_budget(text: str) -> LabelBudget:
    try:
        return LabelBudget.parse(text)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None


def set_threads(threads: int | None) -> int | None:
    """Set the number of torch's threads; loads torch."""
    if threads:
        import torch

        # Processes that train together share the threads.
        torch.set_num_threads(max(1, threads // world_size()))
    return threads


def _tables(paths: list[Path] | None) -> list[Path] | None:
    """The tables in place of each folder of tables."""
    if not paths or not any(path.is_dir() for path in paths):
        return paths
    from stdiff.table.shard_list import tables_in

    return [table for path in paths for table in tables_in(path)]


def _set_device(device: str | None) -> str | None:
    if device:
        if not re.fullmatch(r"cpu|cuda(:\d+)?", device):
            raise typer.BadParameter(f"{device!r} is no device; expected cpu, cuda or e.g. cuda:1")
        # Read by stdiff.runtime.device, in this process and in those it starts.
        os.environ["STDIFF_DEVICE"] = device
    return device


def _labels(**more: Any) -> Any:
    text = "label budget: percent of the training labels, or a number of cases, e.g. 40cases"
    return typer.Option("--labels", parser=_label_budget, metavar="BUDGET", help=text, **more)


ConfigFile = Annotated[Path, typer.Option("--config", help="configuration (YAML)")]
TableArguments = Annotated[
    list[Path], typer.Argument(callback=_tables, help="case tables, shards, or folders of them")
]
Cases = Annotated[
    list[Path], typer.Option("--cases", callback=_tables, help="case tables, one or several")
]
OptionalCases = Annotated[
    list[Path] | None, typer.Option("--cases", callback=_tables, help="case tables")
]
Splits = Annotated[Path, typer.Option("--splits", help="splits table of `stdiff split`")]
OptionalSplits = Annotated[Path | None, typer.Option("--splits", help="splits table")]
Fold = Annotated[int, typer.Option("--fold", help="fold of the splits")]
Labels = Annotated[LabelBudget, _labels()]
_CORPUS = typer.Option("--corpus", callback=_tables, help="shards, their folder, or @shards.txt")
Corpus = Annotated[list[Path], _CORPUS]
OptionalCorpus = Annotated[list[Path] | None, _CORPUS]
Segmenter = Annotated[str, typer.Option("--segmenter", help="name of the segmenter of --weights")]
Model = Annotated[Path, typer.Option("--model", help="model folder")]
Run = Annotated[Path, typer.Argument(help="run folder, results/RUN")]
Seed = Annotated[int, typer.Option("--seed", help="seed of all random draws")]
State = Annotated[Path, typer.Option("--state", help="folder of checkpoints")]
Processes = Annotated[int, typer.Option("--processes", help="worker processes")]
Duration = Annotated[
    float | None,
    typer.Option(
        parser=_duration_s,
        metavar="DURATION",
        help="save and stop with exit code 130 after e.g. 90s, 9m or 2h",
    ),
]
_THREADS = "threads of torch; default: all cores"
Threads = Annotated[int | None, typer.Option("--threads", callback=set_threads, help=_THREADS)]
# For commands that refuse what they can before they load torch; they call set_threads themselves.
ThreadsLater = Annotated[int | None, typer.Option("--threads", help=_THREADS)]
Device = Annotated[
    str | None,
    typer.Option(
        "--device", callback=_set_device, help="cpu, cuda or e.g. cuda:1; default: a GPU, else cpu"
    ),
]
