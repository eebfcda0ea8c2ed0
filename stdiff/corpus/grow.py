"""A whole corpus in one folder: complete shards are kept, missing or damaged ones generated.

Several workers may grow one corpus: each locks the shard it generates. The lock ends with its
process.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tqdm import tqdm

from stdiff.config.generator import SamplerConfig
from stdiff.corpus.plan import count_plan, read_plan
from stdiff.corpus.shards import ImageGenerator, verify_shard
from stdiff.corpus.unfinished import write_shard
from stdiff.runtime.errors import writing
from stdiff.runtime.files import InputError
from stdiff.runtime.locks import file_lock
from stdiff.runtime.unfinished import remove_unfinished


@dataclass
class Grown:
    """How many shards were kept, generated, or left to another worker."""

    kept: int = 0
    made: int = 0
    elsewhere: list[str] = field(default_factory=list)  # locked by another worker

    def __str__(self) -> str:
        said = f"{self.kept} shard(s) kept, {self.made} made"
        if self.elsewhere:
            names = ", ".join(self.elsewhere[:5]) + (", ..." if len(self.elsewhere) > 5 else "")
            said += (
                f"; {len(self.elsewhere)} being made by another worker ({names}); run the same "
                "command again to check that all are there"
            )
        return said


def grow_corpus(
    folder: Path, plan: Path, generator: ImageGenerator, *, shard_size: int, sampler: SamplerConfig
) -> Grown:
    """Generate every shard ``00000.parquet`` … of a plan that is missing or not complete.

    A shard is complete if it can be read, holds its rows of the plan with images that decode, and
    was made by this model and sampler. Any other is made again, and the log says why. Shard i
    holds the rows of the plan from i * shard_size on.

    Args:
        folder: of the shards; created if missing.
        plan: a plan, or a folder of its parts; a longer plan than last time adds shards.
        generator: the model.
        shard_size: rows of a shard; the last one may be shorter.
        sampler: how images are sampled.

    Raises:
        InputError: no plan, or masks of another size than the model's.
        Interrupted: on SIGTERM or SIGINT; finished batches of the current shard are saved.
    """
    count = count_plan(plan)
    if not count:
        raise InputError(f"{plan}: the plan has no rows; make one with `stdiff plan --count N`")
    grown = Grown()
    made = {"model_sha256": generator.sha256, "sampler": sampler.model_dump_json()}
    with tqdm(total=count, unit="image", mininterval=1, desc=Path(folder).name) as progress:
        for shard, first in enumerate(range(0, count, shard_size)):
            path = Path(folder) / f"{shard:05d}.parquet"
            with _claimed(path) as mine:
                if not mine:
                    grown.elsewhere.append(path.name)
                    continue
                rows = read_plan(plan, first, first + shard_size)
                problem = _why_not_whole(path, plan, len(rows), made)
                if problem is None:
                    grown.kept += 1
                    # Kept shards must not distort the estimate of the remaining time.
                    progress.total -= len(rows)
                    progress.refresh()
                    continue
                if path.exists():
                    progress.write(f"made again: {problem}")
                write_shard(rows, generator, sampler, path, progress)
                grown.made += 1
    return grown


def _why_not_whole(path: Path, plan: Path, count: int, made: dict[str, str]) -> str | None:
    """The first reason to make a shard; None if it is complete."""
    if not path.exists():
        return f"{path}: missing"
    if problems := verify_shard(path, plan, count=count, made=made):
        return problems[0] + (f" (and {len(problems) - 1} more)" if len(problems) > 1 else "")
    return None


@contextmanager
def _claimed(path: Path) -> Iterator[bool]:
    """Whether this worker may make the shard; what a killed one has left is removed."""
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    with file_lock(path.with_name(f".{path.stem}.lock"), remove=True) as mine:
        if mine:
            remove_unfinished(path)
        yield mine
