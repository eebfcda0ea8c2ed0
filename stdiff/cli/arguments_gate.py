"""Options of ``stdiff filter``."""

from __future__ import annotations

import argparse
from pathlib import Path

from stdiff.cli import options


def add_filter_actions(parser: argparse.ArgumentParser) -> None:
    """The actions calibrate and apply."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")

    def action(name: str, text: str) -> argparse.ArgumentParser:
        p = options.command(actions, name, text)
        options.config_file(p)
        p.add_argument("--segmenter", required=True, help="name of the segmenter of --weights")
        p.add_argument(
            "--weights", type=Path, required=True, help="trained on real images of the same labels"
        )
        p.add_argument(
            "--reference", type=Path, required=True, help="training images (safetensors)"
        )
        options.threads(p)
        return p

    p = action("calibrate", "set the thresholds by real validation lesions")
    options.data(p)
    options.out(p, "thresholds (JSON)")

    p = action("apply", "score the images of a shard; rejected ones stay, with the reasons")
    p.add_argument("images", type=Path, metavar="SHARD", help="as `stdiff generate` wrote it")
    p.add_argument("--thresholds", type=Path, required=True, help="of `stdiff filter calibrate`")
    options.out(p, "scores and verdicts; SHARD with the suffix .filter.json")
