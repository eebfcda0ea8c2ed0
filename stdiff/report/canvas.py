"""What all figures of a report share: colours, resolution, and being written whole."""

from __future__ import annotations

import base64
from pathlib import Path

from matplotlib.figure import Figure

from stdiff.runtime.files import atomic_write

# Okabe and Ito's colours, told apart with any colour vision; markers tell them apart in grey.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
MARKERS = "osD^vP"
_DPI = 110


def write_figure(figure: Figure, out: Path) -> None:
    """Write one PNG, whole or not at all."""
    with atomic_write(out) as temporary:
        figure.savefig(temporary, format="png", dpi=_DPI, facecolor="white")


def embedded(png: Path) -> str:
    """A picture as a data URI."""
    return "data:image/png;base64," + base64.b64encode(png.read_bytes()).decode("ascii")
