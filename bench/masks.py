"""Masks a second on one core, and whether masks are what was asked for.

    python bench/masks.py [--masks 300]

Prior: the one of the package. Times are medians of rounds that go through all kinds in turn, so
that a busy moment meets them alike; memory is the peak of a process that streams to Parquet.
"""

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from stdiff.birads.lexicon import Findings
from stdiff.birads.query import parse_query
from stdiff.birads.shape import count_lesions, measure
from stdiff.corpus.plan import plan_row
from stdiff.masks.copies import KnownLesions
from stdiff.masks.curvature import CurvatureSource
from stdiff.masks.prior import Prior
from stdiff.masks.sources import mask_source
from stdiff.runtime.randomness import generator

ROUNDS = 5
ASKED = (
    *("orientation=parallel", "orientation=not parallel"),
    *("shape=oval", "shape=round", "shape=irregular"),
    *("margin=circumscribed", "margin=microlobulated", "margin=angular", "margin=spiculated"),
    *("area_fraction=0.02..0.04", "area_fraction=0.2..0.3", "lesion_count=2"),
)


def masks_per_s(source, first, count):
    """Masks drawn in a second, and rows of a plan (mask, PNG, caption)."""
    start = time.perf_counter()
    for index in range(first, first + count):
        source.sample(generator(0, "mask", index))
    drawn = time.perf_counter()
    for index in range(first, first + count):
        plan_row(source, "bench", 0, index)
    return count / (drawn - start), count / (time.perf_counter() - drawn)


def obeyed(prior, asked, count):
    """Share of masks that are, measured back, as they were asked for."""
    query = parse_query(asked)
    source = CurvatureSource(prior, 256, 256, query)
    met = 0
    for index in range(count):
        mask = source.sample(generator(1, asked, index)).mask
        found = measure(mask)
        terms = Findings(
            shape=found.shape,
            orientation=found.orientation,
            margin=(found.margin,) if found.margin else (),
        )
        is_met = query.count_matches(terms) == len(query.terms)
        met += is_met and not query.range_violations(found, count_lesions(mask))
    return met / count


def peak_mb(count):
    """Peak memory of `stdiff masks sample`."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "stdiff", "masks", "sample", "--size", "256"]
        command += ["--count", str(count), "--out", str(Path(folder) / "masks.parquet")]
        subprocess.run(command, check=True, capture_output=True)
        # Of all children so far, therefore ask for small numbers of masks first.
        return resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--masks", type=int, default=300, help="in each round")
    parser.add_argument("--stream", type=int, nargs="*", default=[2000, 8000], help="masks")
    o = parser.parse_args()
    prior = Prior.default()
    sources = {
        f"{kind}, {size} px": mask_source({kind: 1}, prior, size, size)
        for size in (64, 256, 512)
        for kind in ("curvature", "ellipse")
    }
    lesions = [
        sources["curvature, 256 px"].sample(generator(2, "known", i)).mask for i in range(1400)
    ]
    known = KnownLesions(lesions)
    sources["curvature, 256 px, no copy of 1,400"] = CurvatureSource(prior, 256, 256, known=known)
    rates = {name: [] for name in sources}
    for number in range(ROUNDS):
        for name, source in sources.items():
            rates[name].append(masks_per_s(source, number * o.masks, o.masks))
    print("| | masks/s | rows of a plan/s |\n|---|---|---|")
    for name, found in rates.items():
        drawn, planned = np.median(found, axis=0)
        print(f"| {name} | {drawn:.0f} | {planned:.0f} |")
    print(f"| asked for | {o.masks} masks measured back |\n|---|---|")
    for asked in ASKED:
        print(f"| {asked} | {100 * obeyed(prior, asked, o.masks):.1f} % |")
    for count in sorted(o.stream):
        print(f"peak memory of {count} masks at 256 px: {peak_mb(count):.0f} MB")


if __name__ == "__main__":
    main()
