"""Where a file or folder is written until it is finished.

``FOLDER/NAME`` is written in ``FOLDER/.NAME.partial/TOKEN``. Nothing else makes temporary files.
A writer locks its folder; the kernel ends the lock with the process, so the next writer of the same
name knows what a killed one has left, and removes it.
"""

from __future__ import annotations

import errno
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from stdiff.runtime.locks import file_lock

_LOCK = ".lock"
# What is replaced, until the new content has its name.
OLD = ".old"
_ATTEMPTS = 20


def partial_folder(path: Path) -> Path:
    """The folder of all that is to become ``path``."""
    return path.with_name(f".{path.name}.partial")


@contextmanager
def unfinished_folder(path: Path) -> Iterator[Path]:
    """An empty folder of this writer alone beside ``path``; removed at the end.

    Raises:
        OSError: it cannot be made.
    """
    remove_unfinished(path)
    with ExitStack() as stack:
        for attempt in range(_ATTEMPTS):
            folder = partial_folder(path) / uuid.uuid4().hex[:8]
            try:
                folder.mkdir(parents=True)
                lock = file_lock(folder / _LOCK, remove=True, required=False)
                if stack.enter_context(lock):
                    break
            except OSError as error:
                # Another writer may have removed it before it was locked.
                if error.errno != errno.ENOENT or attempt == _ATTEMPTS - 1:
                    raise
        try:
            yield folder
        finally:
            _remove(folder, path)


def remove_unfinished(path: Path) -> None:
    """Remove what killed writers of ``path`` have left; living ones are not disturbed."""
    with suppress(OSError):
        for folder in partial_folder(path).iterdir():
            # Without locks, as on some clusters, nobody knows who lives: left as it is.
            with suppress(OSError), file_lock(folder / _LOCK, remove=True) as dead:
                if dead:
                    _remove(folder, path)
        partial_folder(path).rmdir()


def _remove(folder: Path, path: Path) -> None:
    """Remove a writer's folder; what it was about to replace gets its name back."""
    with suppress(OSError):
        if (folder / OLD).exists() and not path.exists():
            os.replace(folder / OLD, path)
    shutil.rmtree(folder, ignore_errors=True)
    with suppress(OSError):
        folder.parent.rmdir()
