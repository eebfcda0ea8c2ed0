"""The shards of a corpus as one text file, to be given on as ``@FILE``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from stdiff.runtime.files import InputError, write_text

# Its name, in the folder of the shards.
SHARD_LIST = "shards.txt"
_LISTED = 5


def write_shard_list(folder: Path, parts: Sequence[str], out: Path) -> None:
    """Write the path of every part, in the order of the corpus, a line each.

    Args:
        folder: Of the shards; those of an earlier, larger corpus in it are left out.
        parts: Names of the shards without ``.parquet``, as ``corpus.parts`` of a configuration.
        out: Text file to write, whole or not at all.

    Raises:
        InputError: a part is missing.
    """
    shards = [folder / f"{part}.parquet" for part in parts]
    if absent := [shard.name for shard in shards if not shard.is_file()]:
        raise InputError(
            f"{folder}: {len(absent)} of {len(shards)} shards are missing, e.g. "
            f"{', '.join(absent[:_LISTED])}; make them with `snakemake` or `stdiff corpus grow`"
        )
    write_text(out, "".join(f"{shard}\n" for shard in shards))
