"""Images for a row range of a plan."""

from __future__ import annotations

from pathlib import Path

from tqdm import tqdm

from stdiff.config.generator import SamplerConfig
from stdiff.corpus.plan import count_plan, read_plan
from stdiff.corpus.unfinished import write_shard
from stdiff.diffusion.pipeline import Generator
from stdiff.runtime.files import InputError
from stdiff.table.cases import write_cases


def generate_shard(
    plan: Path, model: Path, shard: int, out: Path, *, shard_size: int, sampler: SamplerConfig
) -> None:
    """Generate shard number ``shard`` of a corpus: the plan's rows from shard * shard_size on.

    Args:
        plan: as `stdiff plan` writes it.
        model: model folder.
        shard: from 0.
        out: case table to write.
        shard_size: rows of a shard; the last one may be shorter.
        sampler: how images are sampled; its batch size affects the images.

    Raises:
        InputError: the plan ends before this shard, or does not fit the model.
        Interrupted: on SIGTERM or SIGINT; finished images are saved beside ``out``.
    """
    if shard < 0 or shard_size < 1:
        raise InputError(f"shard {shard}, shard size {shard_size}: expected >= 0 and >= 1")
    rows = read_plan(plan, shard * shard_size, (shard + 1) * shard_size)
    count = count_plan(plan)
    # A plan of replacements has no rows if nothing was rejected; its shard is empty, too.
    if not rows and (count or shard):
        raise InputError(
            f"{plan}: shard {shard} is empty: {count} rows at {shard_size} a shard make "
            f"{-(-count // shard_size)} shard(s), counted from 0"
        )
    with tqdm(total=len(rows), unit="image", mininterval=1) as progress:
        if rows:
            write_shard(rows, Generator.load(model), sampler, out, progress)
        else:
            write_cases([], out)
