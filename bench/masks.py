"""Masks per second on one core, and the share of masks that match their query.

    python bench/masks.py [--masks 300]

Prior: that of the package. Times are medians of rounds over all kinds, so that other load affects
all kinds alike; memory is the peak of a process that streams to Parquet.
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
QUERIES = (
    *("orientation=parallel", "orientation=not parallel"),
    *("shape=oval", "shape=round", "shape=irregular"),
    *("margin=circumscribed", "margin=microlobulated", "margin=angular", "margin=spiculated"),
    *("area_fraction=0.02..0.04", "area_fraction=0.2..0.3", "lesion_count=2"),
)


def masks_per_s(source, first, count):
    """(masks, rows of a plan with mask, PNG and caption) per second."""
    start = time.perf_counter()
    for index in range(first, first + count):
        source.sample(generator(0, "mask", index))
    drawn = time.perf_counter()
    for index in range(first, first + count):
        plan_row(source, "bench", 0, index)
    return count / (drawn - start), count / (time.perf_counter() - drawn)


def matching_share(prior, text, count):
    """Share of drawn masks whose measures match the query."""
    query = parse_query(text)
    source = CurvatureSource(prior, 256, 256, query)
    met = 0
    for index in range(count):
        mask = source.sample(generator(1, text, index)).mask
        found = measure(mask)
        terms = Findings(
            shape=found.shape,
            orientation=found.orientation,
            margin=(found.margin,) if found.margin else (),
        )
        met += query.matches(terms) and not query.range_violations(found, count_lesions(mask))
    return met / count


def peak_mb(count):
    """Peak memory of `stdiff masks sample`."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "stdiff", "masks", "sample", "--size", "256"]
        command += ["--count", str(count), "--out", str(Path(folder) / "masks.parquet")]
        subprocess.run(command, check=True, capture_output=True)
        # The maximum over all child processes so far: call it with small counts first.
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
    print(f"| query | matching, of {o.masks} masks |\n|---|---|")
    for text in QUERIES:
        print(f"| {text} | {100 * matching_share(prior, text, o.masks):.1f} % |")
    for count in sorted(o.stream):
        print(f"peak memory of {count} masks at 256 px: {peak_mb(count):.0f} MB")


if __name__ == "__main__":
    main()
