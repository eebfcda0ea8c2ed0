"""File locks of the kernel: they end with their process, however that ends."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from stdiff.runtime.errors import writing


@contextmanager
def file_lock(
    path: Path, *, waiting: str | None = None, remove: bool = False, required: bool = True
) -> Iterator[bool]:
    """Hold an exclusive lock on a file, which is made if it is missing.

    Args:
        path: the lock file; its folder exists.
        waiting: None = do not wait; a text = print it and wait while another process holds the
            lock.
        remove: remove the file at the end. It must then not be waited for: a waiting process
            would get a lock on a removed file.
        required: False = go on without a lock where the file system has none, as on some clusters.

    Yields:
        Whether this process holds the lock; always True after waiting.

    Raises:
        NotWritten: the file cannot be made.
        OSError: the file system has no locks.
    """
    with writing(path):
        opened = Path(path).open("w")  # noqa: SIM115
    with opened as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if waiting is None:
                yield False
                return
            print(waiting)
            fcntl.flock(handle, fcntl.LOCK_EX)
        except OSError:
            if required:
                raise
        # Another process may have removed the file between opening it and locking it.
        if remove and not _is_same_file(handle.fileno(), path):
            yield False
            return
        try:
            yield True
        finally:
            if remove:
                Path(path).unlink(missing_ok=True)


def _is_same_file(descriptor: int, path: Path) -> bool:
    with suppress(FileNotFoundError):
        return os.path.samestat(os.fstat(descriptor), Path(path).stat())
    return False
