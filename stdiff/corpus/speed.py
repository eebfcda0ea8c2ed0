"""Measured generation speed of a run, to choose the size of shards in minutes."""

from __future__ import annotations

from pathlib import Path
from statistics import median

import pandas as pd

from stdiff.config.run import Config
from stdiff.runtime.files import InputError

_MINUTES = 30


def measured_images_per_s(run: Path, config: Config) -> tuple[float, int]:
    """(median images per second over whole shard jobs, number of shards).

    Raises:
        InputError: Snakemake has not timed a shard of this run yet.
    """
    speeds = []
    for file in sorted((run / "benchmarks" / "shard").glob("*.tsv")):
        shard = int(file.stem.rpartition("-")[2])
        if shard < config.corpus.shards:
            seconds = pd.read_csv(file, sep="\t")["s"].iloc[-1]
            speeds.append(config.corpus.rows_of(shard) / float(seconds))
    if not speeds:
        raise InputError(
            f"{run}/benchmarks/shard: no shard was timed; make a small corpus on the machines that "
            "are to make the large one, e.g. snakemake --config corpus='{count: 500}'"
        )
    return median(speeds), len(speeds)


def speed_text(run: Path, config: Config) -> str:
    """The speed, and the keys to write into the configuration."""
    images_per_s, shards = measured_images_per_s(run, config)
    rounded = float(f"{images_per_s:.2g}")
    return (
        f"{images_per_s:.1f} images a second (median of {shards} shards, the start of each "
        f"included)\ncorpus: {{shard_minutes: {_MINUTES}, images_per_s: {rounded:g}}}"
    )
