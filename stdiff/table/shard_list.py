"""The tables in a folder, and the shards of a corpus as one text file (``@FILE`` in commands)."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from stdiff.runtime.files import InputError, is_clutter, write_text
from stdiff.table.verdicts import lacks_verdicts

# Its name in the folder of the shards.
SHARD_LIST = "shards.txt"
_LISTED = 5


def tables_in(path: Path) -> list[Path]:
    """A case table alone; of a folder, the shards that its list names, or all its case tables.

    Raises:
        InputError: the folder holds no case table.
    """
    path = Path(path)
    if not path.is_dir():
        return [path]
    if (path / SHARD_LIST).is_file():
        lines = (path / SHARD_LIST).read_text(encoding="utf-8").splitlines()
        return [path / Path(line).name for line in lines]
    files = sorted(file for file in path.glob("*.parquet") if not is_clutter(file))
    tables = [file for file in files if _may_be_case_table(file)]
    if not tables:
        found = ", ".join(sorted(file.name for file in path.iterdir())[:_LISTED]) or "nothing"
        raw = shlex.quote(str(path))
        raise InputError(
            f"{path}: a folder without case tables, found {found}; give a folder of shards. Raw "
            f"data are checked by `stdiff verify {raw} --collection NAME` and made a table by "
            f"`stdiff harmonize NAME {raw} --out cases.parquet`"
        )
    return tables


def _may_be_case_table(file: Path) -> bool:
    """False for pairs, files left out and the like; damage is left for those who read it."""
    try:
        return {"case_id", "image"} <= set(pq.read_schema(file).names)
    except (pa.ArrowException, ValueError, OSError):
        return True


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
