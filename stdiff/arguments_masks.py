"""Options of ``stdiff masks``."""

from __future__ import annotations

import argparse
from pathlib import Path


def add_mask_actions(masks: argparse.ArgumentParser) -> None:
    """The actions fit, sample, evaluate and show."""
    actions = masks.add_subparsers(dest="action", required=True, metavar="ACTION")

    def action(name: str, text: str) -> argparse.ArgumentParser:
        return actions.add_parser(
            name,
            help=text,
            description=text,
            formatter_class=argparse.ArgumentDefaultsHelpFormatter,
        )

    p = action("fit", "fit the clinical prior to labelled training masks")
    _labelled(p, required=True)
    p.add_argument("--about", help="what the masks are, kept in the file")
    p.add_argument("--summary", action="store_true", help="keep no line of numbers for each mask")
    p.add_argument("--out", type=Path, required=True, help="prior (JSON)")

    p = action("sample", "draw new masks into a case table without images")
    p.add_argument("--prior", type=Path, help="prior; the one of the package if not given")
    p.add_argument(
        "--kind", default="curvature", help="curvature, bank or ellipse, or e.g. bank=1,curvature=3"
    )
    _labelled(p, required=False)
    p.add_argument("--size", type=int, default=256, help="side of the masks, px")
    p.add_argument("--where", default="", help='e.g. "margin=spiculated, area_fraction=0.02..0.1"')
    p.add_argument("--balance", default="", help='e.g. "pathology=1, margin=0.5"')
    p.add_argument("--count", type=int, required=True, help="masks")
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--out", type=Path, required=True, help="case table (Parquet)")

    p = action("evaluate", "compare masks with real ones that are no training cases")
    p.add_argument("tables", type=Path, nargs="+", metavar="MASKS", help="tables of masks or plans")
    _labelled(p, required=True)
    p.add_argument("--at-most", type=int, default=1000, help="masks of each kind")
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--picture", type=Path, help="64 real and 64 masks of the first table (PNG)")
    p.add_argument("--out", type=Path, required=True, help="JSON")
    p.add_argument("--threads", type=int, help="torch threads; all cores if not given")

    p = action("show", "contact sheet of the first masks of a table")
    p.add_argument("table", type=Path, metavar="MASKS")
    p.add_argument("--count", type=int, default=64, help="masks")
    p.add_argument("--out", type=Path, required=True, help="PNG")


def weights_of(text: str) -> dict[str, float]:
    """{name: number} of "a=1, b=2", or {name: 1} of "a".

    Raises:
        ValueError: what is no number.
    """
    pairs = (part.partition("=") for part in text.split(",") if part.strip())
    return {name.strip(): float(value) if equals else 1.0 for name, equals, value in pairs}


def _labelled(p: argparse.ArgumentParser, *, required: bool) -> None:
    only = "" if required else "bank: "
    p.add_argument("--cases", type=Path, nargs="+", required=required, help=f"{only}case tables")
    p.add_argument("--splits", type=Path, required=required, help=f"{only}splits.parquet")
    p.add_argument("--fold", type=int, default=0, help="of the splits")
    p.add_argument("--label-percent", type=int, default=100, help="labels it may see, %%")
