"""The shards of a corpus as one text file, passed to commands as ``@FILE``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from stdiff.runtime.files import InputError, write_text
from stdiff.table.verdicts import lacks_verdicts

# Its name in the folder of the shards.
SHARD_LIST = "shards.txt"
_LISTED = 5


def write_shard_list(folder: Path, parts: Sequence[str], out: Path) -> None:
    """Write the path of every part, one per line, in the order of the corpus.

    Args:
        folder: of the shards; shards of an earlier, larger corpus in it are ignored.
        parts: names of the shards without ``.parquet``, see ``CorpusConfig.parts``.
        out: text file to write.

    Raises:
        InputError: a part is missing, or lacks its verdicts although the corpus is filtered.
    """
    shards = [folder / f"{part}.parquet" for part in parts]
    if absent := [s.name for s in shards if not s.is_file() or lacks_verdicts(s)]:
        raise InputError(
            f"{folder}: {len(absent)} of {len(shards)} shards are missing or not filtered, e.g. "
            f"{', '.join(absent[:_LISTED])}; make them with `snakemake` or `stdiff corpus grow`"
        )
    write_text(out, "".join(f"{shard}\n" for shard in shards))
