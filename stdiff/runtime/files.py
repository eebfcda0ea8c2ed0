"""Atomic writes, and content hashes of files and folders."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import reprlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from stdiff.runtime.errors import InputError, NotWritten, UnusableFile, writing
from stdiff.runtime.unfinished import OLD, partial_folder, unfinished_folder

# File in a folder with the hashes of the others.
SUMS = "sha256.txt"
# Key of a JSON object with the SHA-256 of the rest.
SEAL = "content_sha256"
# Left behind by file managers and archivers; no part of any collection.
CLUTTER = frozenset({"__MACOSX", ".DS_Store", "Thumbs.db", "desktop.ini"})


def unreadable_table(path: Path, error: Exception) -> UnusableFile:
    """The error for a Parquet file that cannot be read."""
    return UnusableFile(
        f"{path}: not a readable Parquet file ({error}); if it is damaged, delete it and rerun the "
        "step that made it"
    )


def is_clutter(path: Path) -> bool:
    """Whether a file or folder is hidden or was left behind by a file manager or archiver."""
    return path.name in CLUTTER or path.name.startswith(".")


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Yield a temporary path of the same name to write a file or folder to; rename it when done.

    After a crash ``path`` is unchanged or complete. (Between the two renames that replace an
    existing folder it is absent; the next writer then puts the old one back.) Files get the
    permissions of the user's umask, whatever their writer gave them.

    Raises:
        NotWritten: the disk is full, the folder is not writable, a file would replace a folder,
            and the like.
    """
    path = Path(path)
    _check_replaceable(path)
    with writing(path, inside=partial_folder(path)), unfinished_folder(path) as folder:
        temporary = folder / path.name
        yield temporary
        _finish(temporary, mode=folder.stat().st_mode & 0o666)
        if path.is_dir() and temporary.exists():
            if not temporary.is_dir():
                raise IsADirectoryError(errno.EISDIR, "", str(path))
            # Deleting takes time and may be interrupted; a rename may not.
            os.replace(path, folder / OLD)
        os.replace(temporary, path)


def _check_replaceable(path: Path) -> None:
    """Check that a file or folder may be given this name.

    Raises:
        NotWritten: it is that of the current folder or one above it, or a device or a pipe.
    """
    special = path.exists() and not path.is_file() and not path.is_dir()
    if special or path.name in ("", ".."):
        number = errno.EINVAL if special else errno.EISDIR
        raise NotWritten(number, os.strerror(number), str(path))


def _finish(written: Path, mode: int) -> None:
    """Set the permissions of all files, and wait until a single file is on the disk."""
    for path in [written, *written.rglob("*")]:
        if path.is_file() and not path.is_symlink():
            path.chmod(mode)
    if written.is_file():
        with written.open("rb") as handle:
            os.fsync(handle.fileno())


def write_text(path: Path, text: str) -> None:
    """Write a UTF-8 text file atomically."""
    with atomic_write(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def read_json(path: Path) -> dict[str, Any]:
    """A JSON file of the run.

    Raises:
        InputError: it is missing or damaged; or, later, on access to a key that it lacks.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such file; is the run finished?")
    try:
        return _Record(path, unsealed(json.loads(path.read_bytes())))
    except ValueError as error:
        raise InputError(
            f"{path}: damaged JSON ({error}); delete it and rerun the step that made it"
        ) from error


class _Record(dict[str, Any]):
    """A JSON object whose missing keys name their file."""

    def __init__(self, path: Path, values: dict[str, Any]) -> None:
        super().__init__(values)
        self._path = path

    def __missing__(self, key: str) -> Any:
        raise InputError(
            f"{self._path}: key {key!r} is missing; another version of stdiff wrote the file: "
            "delete it and rerun the step that made it"
        )


def sealed(values: Mapping[str, Any]) -> dict[str, Any]:
    """A JSON object with the SHA-256 of its content, by which :func:`unsealed` sees damage."""
    return {**values, SEAL: _json_sha256(values)}


def unsealed(found: Any) -> dict[str, Any]:
    """A JSON object without its seal; one from elsewhere has none.

    Raises:
        ValueError: no object, or the content does not match the seal.
    """
    if not isinstance(found, dict):
        raise ValueError(f"expected an object, found {reprlib.repr(found)}")
    values = {key: value for key, value in found.items() if key != SEAL}
    if found.get(SEAL) not in (None, _json_sha256(values)):
        raise ValueError(f"its content does not match its {SEAL}")
    return values


def _json_sha256(values: Mapping[str, Any]) -> str:
    # JSON writes a number the same way after it was read, so the text need not be kept.
    return sha256_bytes(json.dumps(values, sort_keys=True).encode())


def sha256_bytes(data: bytes) -> str:
    """Hex SHA-256 of the bytes."""
    return hashlib.sha256(data).hexdigest()


def sha256_file(path: Path) -> str:
    """Hex SHA-256 of a file's content."""
    with Path(path).open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def sha256_folder(path: Path) -> str:
    """Hex SHA-256 of the names and contents of a folder's files, independent of listing order.

    Logs (``*.jsonl``) and hidden files are left out: they hold speeds and times of day.
    """
    digest = hashlib.sha256()
    for name in _content(path):
        digest.update(f"{name}\0{sha256_file(Path(path) / name)}\n".encode())
    return digest.hexdigest()


def _content(folder: Path) -> list[str]:
    """Names of a folder's files without logs and hidden files."""
    files = (p.relative_to(folder) for p in sorted(Path(folder).rglob("*")) if p.is_file())
    return [
        file.as_posix()
        for file in files
        if file.suffix != ".jsonl" and not any(part.startswith(".") for part in file.parts)
    ]


def write_sums(folder: Path) -> None:
    """Write the hashes of a folder's files into it, in the format of ``sha256sum --check``.

    The files are those of :func:`sha256_folder`, whose result depends on the new file too.
    """
    lines = (f"{sha256_file(Path(folder) / name)}  {name}\n" for name in _content(folder))
    write_text(Path(folder) / SUMS, "".join(lines))


def differing_files(folder: Path) -> list[str]:
    """Files of a folder that changed or vanished since :func:`write_sums`.

    Empty if no sums were written.
    """
    sums = Path(folder) / SUMS
    lines = sums.read_text(encoding="utf-8", errors="replace") if sums.is_file() else ""
    said = (line.partition("  ")[::2] for line in lines.splitlines())
    return [
        name
        for sha256, name in said
        if not (path := Path(folder) / name).is_file() or sha256_file(path) != sha256
    ]
