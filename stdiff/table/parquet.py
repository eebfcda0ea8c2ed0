"""Opening Parquet files: existence, page check sums and columns are checked in one place."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from stdiff.runtime.files import InputError, UnusableFile, unreadable_table


@contextmanager
def open_parquet(
    path: Path,
    *,
    kind: str = "file",
    hint: str = "rerun the step that made it",
    columns: Sequence[str] = (),
    schema: pa.Schema | None = None,
) -> Iterator[pq.ParquetFile]:
    """A Parquet file to read from; damage found while it is read is reported, too.

    Args:
        path: the file.
        kind: what it should be, for messages: ``no such <kind>``, ``not a <kind>``.
        hint: how to make it, for messages.
        columns: required column names.
        schema: required schema (all columns, in order); None = any.

    Raises:
        UnusableFile: it is missing, no Parquet file, damaged, or lacks columns.
        OSError: the operating system refuses to read it.
    """
    path = Path(path)
    if not path.is_file():
        found = f"is a folder, not a {kind}" if path.is_dir() else f"no such {kind}"
        raise UnusableFile(f"{path}: {found}; {hint}")
    try:
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            found = file.schema_arrow
            if missing := [name for name in columns if name not in found.names]:
                raise UnusableFile(
                    f"{path}: not a {kind}: column(s) {', '.join(missing)} missing, "
                    f"found {', '.join(found.names)}; {hint}"
                )
            if schema is not None and not found.equals(schema):
                raise UnusableFile(
                    f"{path}: not a {kind}: found columns {', '.join(found.names)}; {hint}"
                )
            yield file
    except InputError:
        raise
    except OSError as error:
        if error.errno is None:
            raise unreadable_table(path, error) from error
        # Of the operating system: the file may be whole. Where it is named, another one is meant.
        if error.filename is None:
            raise OSError(error.errno, os.strerror(error.errno), str(path)) from error
        raise
    # A damaged footer may also hold undecodable text or JSON, which are other ValueErrors.
    except (pa.ArrowException, ValueError) as error:
        raise unreadable_table(path, error) from error


def read_parquet(
    path: Path,
    columns: Sequence[str] | None = None,
    *,
    types: pa.Schema | None = None,
    kind: str = "file",
    hint: str = "rerun the step that made it",
) -> pa.Table:
    """The table of a Parquet file.

    Args:
        path: the file.
        columns: names to read, all required, in this order; None = those of ``types``, or all.
        types: types that the columns are cast to.
        kind: see :func:`open_parquet`.
        hint: see :func:`open_parquet`.

    Raises:
        UnusableFile: as of :func:`open_parquet`, or a column of another type.
    """
    wanted = list(columns or (types.names if types is not None else ()))
    with open_parquet(path, kind=kind, hint=hint, columns=wanted) as file:
        table = file.read(columns=wanted or None)
        if wanted:
            table = table.select(wanted)
        try:
            if types is not None:
                table = table.cast(pa.schema([types.field(name) for name in wanted]))
            table.validate(full=True)
        except (pa.ArrowException, ValueError) as error:
            raise UnusableFile(
                f"{path}: damaged, or a column is not of the type of a {kind} ({error}); "
                "make it again"
            ) from error
        return table
