"""Options of ``stdiff masks``."""

from __future__ import annotations

import argparse
from pathlib import Path

from stdiff.cli import options


def add_mask_actions(masks: argparse.ArgumentParser) -> None:
    """The actions fit, sample, evaluate and show."""
    actions = masks.add_subparsers(dest="action", required=True, metavar="ACTION")

    def action(name: str, text: str) -> argparse.ArgumentParser:
        return options.command(actions, name, text)

    p = action("fit", "fit the clinical prior to labelled training masks")
    _labelled(p, required=True)
    p.add_argument("--about", help="what the masks are, kept in the file")
    p.add_argument("--summary", action="store_true", help="keep no line of numbers for each mask")
    options.out(p, "prior (JSON)")

    p = action(
        "sample",
        "draw new masks into a case table without images; kind bank needs cases and splits",
    )
    p.add_argument("--prior", type=Path, help="prior; the one of the package if not given")
    p.add_argument(
        "--kind", default="curvature", help="curvature, bank or ellipse, or e.g. bank=1,curvature=3"
    )
    _labelled(p, required=False)
    p.add_argument("--size", type=int, default=256, help="side of the masks, px")
    p.add_argument("--where", default="", help='e.g. "margin=spiculated, area_fraction=0.02..0.1"')
    p.add_argument("--balance", default="", help='e.g. "pathology=1, margin=0.5"')
    p.add_argument("--count", type=int, required=True, help="masks")
    options.seed(p)
    options.out(p, "case table (Parquet)")

    p = action("evaluate", "compare masks with real ones that are no training cases")
    p.add_argument("tables", type=Path, nargs="+", metavar="MASKS", help="tables of masks or plans")
    _labelled(p, required=True)
    p.add_argument("--at-most", type=int, default=1000, help="masks of each kind")
    options.seed(p)
    p.add_argument("--picture", type=Path, help="64 real and 64 masks of the first table (PNG)")
    options.out(p, "JSON")
    options.threads(p)

    p = action("show", "contact sheet of the first masks of a table")
    p.add_argument("table", type=Path, metavar="MASKS")
    p.add_argument("--count", type=int, default=64, help="masks")
    options.out(p, "PNG")


def weights_of(text: str) -> dict[str, float]:
    """{name: number} of "a=1, b=2", or {name: 1} of "a".

    Raises:
        ValueError: what is no number.
    """
    pairs = (part.partition("=") for part in text.split(",") if part.strip())
    return {name.strip(): float(value) if equals else 1.0 for name, equals, value in pairs}


def _labelled(p: argparse.ArgumentParser, *, required: bool) -> None:
    options.data(p, required=required)
    p.add_argument("--fold", type=int, default=0, help="of the splits")
    options.labels(p)
