"""Unpack untrusted zip archives atomically.

All entries are checked before a byte is written: none may lead out of the target folder, be a link
or a device, occur twice, be encrypted, or exceed the limits. The files are then written to a
temporary folder, which is renamed at the end.
"""

from __future__ import annotations

import lzma
import re
import shutil
import stat
import struct
import unicodedata
import zipfile
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from tqdm import tqdm

from stdiff.runtime.errors import os_error_line, writing
from stdiff.runtime.files import CLUTTER, InputError, atomic_write

GIB = 2**30
_CHUNK_BYTES = 2**20
_ENCRYPTED_FLAGS = 0x1 | 0x40 | 0x2000
# zipfile and its decompressors raise these for damaged, future-versioned or encrypted entries.
_UNREADABLE = (
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    struct.error,
    EOFError,
    ValueError,
    RuntimeError,  # NotImplementedError among them
)


@dataclass(frozen=True)
class Limits:
    """Limits on the contents of an archive.

    Attributes:
        density: unpacked / packed bytes of a file or of the archive, checked above
            ``dense_from_bytes`` unpacked bytes; images hardly shrink, tables less than 50-fold.
    """

    entries: int = 200_000
    file_bytes: int = 4 * GIB
    total_bytes: int = 64 * GIB
    density: int = 200
    dense_from_bytes: int = 2**20

    def too_dense(self, size_bytes: int, packed_bytes: int) -> bool:
        """Whether the compression ratio is that of a compression bomb."""
        return size_bytes > self.dense_from_bytes and size_bytes > self.density * packed_bytes


LIMITS = Limits()


@dataclass(frozen=True)
class Unpacked:
    """What was written, and the entries outside the collection's folder."""

    file_count: int
    size_bytes: int
    left_out: tuple[str, ...]


def unpack(archive: Path, folder: Path, holds: Sequence[str], limits: Limits = LIMITS) -> Unpacked:
    """Unpack the folder of ``archive`` that contains ``holds`` to ``folder``, which must not exist.

    The archive may have one top folder, nested ones, or none. Permissions and times of the entries
    are not kept.

    Raises:
        InputError: not a complete zip archive, an unsafe or damaged entry (named), a limit or the
            free disk space is exceeded, or no folder in it contains all of ``holds``.
    """
    if folder.exists():
        raise InputError(f"{folder}: exists already; move it away or choose another folder")
    try:
        opened = zipfile.ZipFile(archive)
    except (*_UNREADABLE, OSError) as error:
        raise InputError(
            f"{archive}: not a complete zip archive ({error}); download it again"
        ) from error
    with opened:
        files = safe_entries(opened.infolist(), archive, limits)
        top = _top_folder(files, holds, archive)
        inside = {path: info for path, info in files.items() if path.is_relative_to(top)}
        size_bytes = sum(info.file_size for info in inside.values())
        require_space(folder.parent, size_bytes, f"unpack {archive.name}")
        with atomic_write(folder) as temporary:
            targets = {temporary / p.relative_to(top): i for p, i in inside.items()}
            _write(opened, targets, size_bytes)
    left_out = tuple(str(path) for path in files if path not in inside)
    return Unpacked(len(inside), size_bytes, left_out)


def safe_entries(
    infos: Iterable[zipfile.ZipInfo], archive: Path, limits: Limits = LIMITS
) -> dict[PurePosixPath, zipfile.ZipInfo]:
    """The files of an archive by relative path, without folders and file managers' files.

    Raises:
        InputError: an entry is unsafe (named), or a limit is exceeded.
    """
    infos = list(infos)
    if len(infos) > limits.entries:
        raise InputError(f"{archive}: {len(infos)} entries; at most {limits.entries} are unpacked")
    files: dict[PurePosixPath, zipfile.ZipInfo] = {}
    seen: dict[str, str] = {}
    for info in infos:
        path = _safe_path(info, archive)
        _refuse_special(info, archive)
        is_folder = info.orig_filename.endswith(("/", "\\"))
        if is_folder or not path.parts or _is_clutter(path):
            continue
        if info.file_size > limits.file_bytes or limits.too_dense(
            info.file_size, info.compress_size
        ):
            raise _refused(
                archive,
                info,
                f"{info.compress_size} bytes would unpack to {info.file_size}, as in a "
                "compression bomb",
            )
        # Mac and Windows file systems ignore case and the coding of accents.
        key = unicodedata.normalize("NFC", str(path)).casefold()
        if key in seen:
            raise _refused(archive, info, f"occurs twice, also as {seen[key]!r}")
        seen[key] = info.orig_filename
        files[path] = info
    for path, info in files.items():
        if blocked := next((p for p in path.parents if p in files), None):
            raise _refused(archive, info, f"is below {str(blocked)!r}, which is a file")
    total = sum(info.file_size for info in files.values())
    if total > limits.total_bytes or limits.too_dense(total, archive.stat().st_size):
        raise InputError(
            f"{archive}: {archive.stat().st_size} bytes would unpack to {total}, as in a "
            f"compression bomb; at most {limits.total_bytes} are unpacked"
        )
    return files


def require_space(folder: Path, needed_bytes: int, purpose: str) -> None:
    """Check the free disk space before writing.

    Raises:
        InputError: the disk of ``folder`` has less than ``needed_bytes`` free.
    """
    free = shutil.disk_usage(folder).free
    if free < needed_bytes:
        raise InputError(
            f"{folder}: to {purpose} takes {needed_bytes / 1e9:.2f} GB, {free / 1e9:.2f} GB are "
            "free; free disk space or choose a folder on another disk"
        )


def _refused(archive: Path, info: zipfile.ZipInfo, reason: str) -> InputError:
    return InputError(
        f"{archive}: entry {info.orig_filename!r} {reason}; nothing was unpacked. Fetch the "
        "archive from its publisher"
    )


def _safe_path(info: zipfile.ZipInfo, archive: Path) -> PurePosixPath:
    """Path of an entry below the archive's root; Windows packers write backslashes."""
    name = info.orig_filename.replace("\\", "/")
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or re.match(r"[A-Za-z]:", name):
        raise _refused(archive, info, "leads out of the folder it is unpacked to")
    if re.search(r"[\x00-\x1f]", name):
        raise _refused(archive, info, "has control characters in its name")
    return path


def _refuse_special(info: zipfile.ZipInfo, archive: Path) -> None:
    kind = stat.S_IFMT(info.external_attr >> 16)
    if kind == stat.S_IFLNK:
        raise _refused(archive, info, "is a symbolic link")
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        raise _refused(archive, info, "is a device or another special file")
    if info.flag_bits & _ENCRYPTED_FLAGS:
        raise _refused(archive, info, "is encrypted")


def _is_clutter(path: PurePosixPath) -> bool:
    return path.name.startswith("._") or not CLUTTER.isdisjoint(path.parts)


def _top_folder(
    files: Iterable[PurePosixPath], holds: Sequence[str], archive: Path
) -> PurePosixPath:
    """The folder nearest to the archive's root that contains all of ``holds``."""
    files = set(files)
    folders = {parent for path in files for parent in path.parents}
    there = files | folders
    found = [f for f in folders if all(f / part in there for part in holds)]
    depth = min((len(f.parts) for f in found), default=0)
    nearest = sorted(str(f) for f in found if len(f.parts) == depth)
    if not nearest:
        top = ", ".join(sorted({path.parts[0] for path in files})[:8]) or "nothing"
        raise InputError(
            f"{archive}: no folder contains {', '.join(holds)}; found {top} at its top. Is it "
            "the archive of this collection?"
        )
    if len(nearest) > 1:
        raise InputError(
            f"{archive}: {', '.join(nearest)} all contain {', '.join(holds)}; unpack the right one "
            "by hand"
        )
    return PurePosixPath(nearest[0])


def _write(opened: zipfile.ZipFile, files: dict[Path, zipfile.ZipInfo], size_bytes: int) -> None:
    """Write each file; zipfile checks its CRC."""
    archive = Path(opened.filename or "")
    with tqdm(
        total=size_bytes, desc=f"unpack {archive.name}", unit="B", unit_scale=True, disable=None
    ) as progress:
        for path, info in files.items():
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                with opened.open(info) as packed, writing(path), path.open("xb") as out:
                    while chunk := packed.read(_CHUNK_BYTES):
                        out.write(chunk)
                        progress.update(len(chunk))
                written = path.stat().st_size
            except _UNREADABLE as error:
                raise _refused(archive, info, f"is damaged ({error})") from error
            except OSError as error:
                raise InputError(
                    f"{archive}: entry {info.orig_filename!r}: {os_error_line(error)}; "
                    "nothing was unpacked"
                ) from error
            if written != info.file_size:
                raise _refused(
                    archive, info, f"is damaged ({written} bytes of {info.file_size} came out)"
                )
