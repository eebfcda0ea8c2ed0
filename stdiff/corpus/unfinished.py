"""Resumable generation of a shard: finished batches are saved each minute."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from stdiff.config.generator import SamplerConfig
from stdiff.corpus.plan import row_sha256
from stdiff.corpus.shards import ImageGenerator, make_shard
from stdiff.runtime.files import UnusableFile, sha256_bytes
from stdiff.runtime.stopping import Interrupted, stop_requests
from stdiff.table.cases import write_cases
from stdiff.table.parquet import open_parquet

SAVE_EVERY_S = 60.0


def write_shard(
    plan_rows: Sequence[dict[str, Any]],
    generator: ImageGenerator,
    sampler: SamplerConfig,
    out: Path,
    progress: tqdm[Any],
) -> None:
    """Generate the images of a plan's rows (see :func:`make_shard`) and write their case table.

    Finished batches are saved beside ``out`` each minute. A second call with the same rows, model
    and sampler resumes from them and writes the same table; with others it starts anew.

    Raises:
        Interrupted: on SIGTERM or SIGINT; the finished batches are saved.
        InputError: see :func:`make_shard`.
    """
    out = Path(out)
    unfinished = out.with_name(f".{out.stem}.unfinished")
    made_of = [*map(row_sha256, plan_rows), generator.sha256, sampler.model_dump_json()]
    parts = unfinished / sha256_bytes("\n".join(made_of).encode())[:12]
    write_cases(_rows(plan_rows, generator, sampler, parts, progress), out)
    if unfinished.exists():
        shutil.rmtree(unfinished)


def _rows(
    plan_rows: Sequence[dict[str, Any]],
    generator: ImageGenerator,
    sampler: SamplerConfig,
    parts: Path,
    progress: tqdm[Any],
) -> Iterator[dict[str, Any]]:
    """Saved rows, then newly generated ones, which are saved as well."""
    kept = 0
    while rows := _read_part(parts / f"{kept:08d}.parquet"):
        yield from rows
        kept += len(rows)
        progress.update(len(rows))
    if kept and kept < len(plan_rows):
        progress.write(f"resuming at image {kept} of {len(plan_rows)}, from {parts}")
    fresh: list[dict[str, Any]] = []
    saved_s = time.monotonic()
    with stop_requests() as stop:
        for row in make_shard(plan_rows[kept:], generator, sampler, progress):
            yield row
            fresh.append(row)
            made = kept + len(fresh)
            due = stop or time.monotonic() - saved_s > SAVE_EVERY_S
            # Whole batches only, so that the remaining images do not change.
            if due and made % sampler.batch == 0 and made < len(plan_rows):
                write_cases(fresh, parts / f"{kept:08d}.parquet")
                kept, fresh, saved_s = made, [], time.monotonic()
                if stop:
                    raise Interrupted(
                        f"stopped at image {kept} of {len(plan_rows)}; they are kept in {parts}. "
                        "Run the same command to resume."
                    )


def _read_part(path: Path) -> list[dict[str, Any]]:
    """Rows of a saved part; none if it is missing, or damaged (with a message)."""
    if not path.exists():
        return []
    try:
        with open_parquet(path) as file:
            return file.read().to_pylist()
    except UnusableFile as error:
        print(f"{error}; its images are made again")
        return []
