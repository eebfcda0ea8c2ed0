"""Options of ``stdiff corpus`` and ``stdiff export``."""

from __future__ import annotations

import argparse
from pathlib import Path

from stdiff.cli import options

# As in stdiff.export.export, which takes a moment to import.
LAYOUTS = ("folders", "nnunet", "monai", "huggingface")


def add_corpus_actions(corpus: argparse.ArgumentParser) -> None:
    """The actions grow, list, speed, verify, show and card."""
    actions = corpus.add_subparsers(dest="action", required=True, metavar="ACTION")

    p = options.command(
        actions,
        "grow",
        "make what a folder of shards lacks of its plan, damaged shards again; several may run",
    )
    p.add_argument("folder", type=Path, help="of 00000.parquet, 00001.parquet, ...")
    p.add_argument("--plan", type=Path, required=True, help="a longer one makes the corpus grow")
    p.add_argument("--model", type=Path, required=True, help="model folder")
    options.config_file(p)
    options.threads(p)

    p = options.command(
        actions, "list", "the shards of a whole corpus, a line each; give them on as @FILE"
    )
    p.add_argument("folder", type=Path, help="of the shards that the configuration asks for")
    options.config_file(p)
    options.out(p, "text")

    p = options.command(
        actions, "speed", "images a second of a run's shards, to size those of a larger corpus by"
    )
    p.add_argument("run", type=Path, help="run folder, results/<run>")

    def action(name: str, text: str) -> argparse.ArgumentParser:
        p = options.command(actions, name, text)
        p.add_argument("shards", type=Path, nargs="+", metavar="SHARD", help="of one corpus")
        return p

    p = action("verify", "every problem of the shards against their plan; exit 1 if any")
    p.add_argument("--plan", type=Path, required=True)

    p = action("show", "contact sheet: images, evenly spread over the corpus, with their masks")
    p.add_argument("--count", type=int, default=40, help="images")
    options.out(p, "PNG")

    p = action("card", "data card: contents, origin, licences that bind it, how to make it again")
    p.add_argument(
        "--cases", type=Path, nargs="+", required=True, help="tables its model was trained on"
    )
    p.add_argument("--config", type=Path, help="of the run: seed, how to make it again")
    options.out(p, "Markdown")


def add_export_options(p: argparse.ArgumentParser) -> None:
    """The options of ``stdiff export``."""
    p.add_argument("tables", type=Path, nargs="+", metavar="TABLE", help="case tables or shards")
    p.add_argument("--as", dest="layout", choices=LAYOUTS, default="folders")
    p.add_argument(
        "--to", type=Path, required=True, help="folder, must not exist; nnunet: DatasetNNN_Name"
    )
    p.add_argument("--splits", type=Path, help="keep test and validation cases apart")
    p.add_argument("--fold", type=int, default=0, help="of the splits")
    p.add_argument("--rejected-too", action="store_true", help="also what the filter rejected")
    p.add_argument("--labelled-only", action="store_true", help="leave out cases without a mask")
