"""Options that several commands have, and how a command is made."""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from typing import Any

from stdiff.table.label_budget import LabelBudget


def command(commands: Any, name: str, text: str) -> argparse.ArgumentParser:
    """A further command of argparse's subparsers, which shows its defaults."""
    return commands.add_parser(
        name,
        help=text,
        description=text,
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )


def duration_s(text: str) -> float:
    """Seconds of '90', '90s', '9m' or '2h'."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([smh]?)", text.strip())
    if not match:
        raise argparse.ArgumentTypeError(f"{text!r} is no duration; write e.g. 90s, 9m or 2h")
    return float(match[1]) * {"": 1, "s": 1, "m": 60, "h": 3600}[match[2]]


def config_file(p: argparse.ArgumentParser) -> None:
    """The run's configuration."""
    p.add_argument("--config", type=Path, required=True, help="configuration (YAML)")


def data(p: argparse.ArgumentParser, *, required: bool = True) -> None:
    """Case tables and splits."""
    p.add_argument("--cases", type=Path, nargs="+", required=required, help="case tables")
    p.add_argument("--splits", type=Path, required=required, help="splits table")


def label_budget(text: str) -> LabelBudget:
    """A label budget, see :class:`stdiff.table.label_budget.LabelBudget`."""
    try:
        return LabelBudget.parse(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def labels(p: argparse.ArgumentParser, *, required: bool = False) -> None:
    """The label budget."""
    p.add_argument(
        "--labels",
        type=label_budget,
        required=required,
        default=None if required else "100",
        help="label budget: percent of the training labels, or a number of cases, e.g. 40cases",
    )


def out(p: argparse.ArgumentParser, what: str) -> None:
    """Where the result goes."""
    p.add_argument("--out", type=Path, required=True, help=what)


def seed(p: argparse.ArgumentParser) -> None:
    """The seed."""
    p.add_argument("--seed", type=int, default=0, help="everything random is drawn from it")


def threads(p: argparse.ArgumentParser) -> None:
    """Torch's threads."""
    p.add_argument("--threads", type=int, help="threads of torch; all cores if left out")
