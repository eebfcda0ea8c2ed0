"""Getting a collection: download or take an archive, verify, unpack, say licence and citation."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

from stdiff.fetching.archives import unpack
from stdiff.fetching.download import TransferError, Verified, download, verify_file
from stdiff.fetching.sources import SOURCES, Source, SourceFile
from stdiff.runtime.files import InputError, atomic_write, sha256_file, write_text
from stdiff.runtime.locks import file_lock


def fetch(collection: str, to: Path, archive: Sequence[Path] | None = None) -> Path:
    """Bring a published collection to ``to``; returns its folder, ready for ``harmonize``.

    Args:
        collection: a name in ``SOURCES``.
        to: folder that gets the collection's own folder, and its downloads beside it.
        archive: files the user has already; then nothing is downloaded.

    Raises:
        InputError: see :func:`fetch_source`; or no such collection.
    """
    if collection not in SOURCES:
        raise InputError(f"{collection!r} is no collection; one of {', '.join(sorted(SOURCES))}")
    return fetch_source(SOURCES[collection], Path(to), archive or ())


def fetch_source(source: Source, to: Path, archives: Sequence[Path] = ()) -> Path:
    """:func:`fetch` of a source that need not be in the table.

    The same command again goes on with a download that was cut off, and says so once all is there.

    Raises:
        InputError: a file that is missing, of another size or checksum than its host publishes,
            unsafe or damaged; a transfer that broke off; no room; a folder in the way.
    """
    folder = to / source.folder
    record = to / f".{source.folder}.source.json"
    try:
        to.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"--to {to}: cannot be made a folder ({error})") from error
    # Two runs at once would write into one part file.
    with file_lock(to / f".{source.folder}.lock", remove=True, required=False) as alone:
        if not alone:
            raise InputError(f"{to}: another `stdiff fetch` is at work here; wait for it to end")
        if folder.exists() and record.is_file():
            print(f"{folder}: is there already; to fetch it anew, move it away")
        elif folder.exists():
            raise InputError(
                f"{folder}: exists already, and not from a finished `stdiff fetch`; move it away "
                "or name another folder with --to"
            )
        else:
            files = _given(source, archives, to) if archives else _downloaded(source, to)
            _unpack_beside(source, files, folder)
            sha256 = {file.name: verified.sha256 for file, verified in files.items()}
            write_text(record, json.dumps({"collection": source.collection, "sha256": sha256}))
    print(f"{source.title}\nlicence: {source.licence}\ncite: {source.citation}")
    print(f"next: stdiff harmonize {source.collection} {to} --out {source.collection}.parquet")
    return folder


def _unpack_beside(source: Source, files: dict[SourceFile, Verified], folder: Path) -> None:
    """Unpack the archive to ``folder``, the other files beside it; the folder comes last."""
    for file, verified in files.items():
        if file.suffix != ".zip":
            _put_beside(verified.path, folder.parent / file.name)
    archive = next(verified.path for file, verified in files.items() if file.suffix == ".zip")
    unpacked = unpack(archive, folder, source.holds)
    print(f"{folder}: {unpacked.file_count} files, {unpacked.size_bytes / 1e6:.1f} MB")
    if unpacked.left_out:
        shown = ", ".join(unpacked.left_out[:5])
        print(f"left out, not of {source.folder}/: {len(unpacked.left_out)} file(s): {shown}")
    if archive.parent == folder.parent:
        print(f"{archive}: is no longer needed")


def _put_beside(path: Path, target: Path) -> None:
    if target.exists():
        if sha256_file(target) != sha256_file(path):
            raise InputError(f"{target}: exists and differs from {path}; move one of them away")
        return
    with atomic_write(target) as temporary:
        shutil.copyfile(path, temporary)


def _given(source: Source, archives: Sequence[Path], to: Path) -> dict[SourceFile, Verified]:
    """The user's files, told apart by their suffix; one left out may lie in ``to`` already."""
    by_suffix = {file.suffix: file for file in source.files}
    paths: dict[SourceFile, Path] = {}
    for path in map(Path, archives):
        if path.is_dir():
            raise InputError(
                f"--archive {path}: is a folder; an unpacked collection needs no fetching: "
                f"stdiff harmonize {source.collection} {path} --out {source.collection}.parquet"
            )
        if not path.is_file():
            raise InputError(f"--archive {path}: no such file")
        file = by_suffix.get(path.suffix.lower())
        if file is None or file in paths:
            expected = " and ".join(f"one {suffix}" for suffix in by_suffix)
            raise InputError(f"--archive {path}: {source.collection} takes {expected} file")
        paths[file] = path
    for file in source.files:
        if file not in paths and not (to / file.name).is_file():
            raise InputError(
                f"{file.name} is missing: give it with a further --archive, or put it in {to}. "
                f"It is at {source.landing_page}"
            )
    return {file: verify_file(paths.get(file, to / file.name), file) for file in source.files}


def _downloaded(source: Source, to: Path) -> dict[SourceFile, Verified]:
    archives = " ".join(f"--archive {file.name}" for file in source.files)
    by_hand = (
        f"By hand: {source.landing_page} ({source.by_hand}), then "
        f"`stdiff fetch {source.collection} --to {to} {archives}`"
    )
    missing = [f.name for f in source.files if not f.address and not (to / f.name).is_file()]
    if missing:
        raise InputError(
            f"{', '.join(missing)}: no address is known from which it can be downloaded without "
            f"you. {by_hand}. Licence: {source.licence}. Cite: {source.citation}"
        )
    try:
        return {file: download(file, to) for file in source.files}
    except TransferError as error:
        raise InputError(f"{error}. {by_hand}. (Second-hand: {source.second_hand})") from error
