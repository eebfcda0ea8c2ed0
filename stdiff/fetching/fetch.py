"""Fetch a collection: download or take an archive, verify, unpack, print licence and citation."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

from stdiff.fetching.archives import unpack
from stdiff.fetching.download import TransferError, Verified, download, verify_file
from stdiff.fetching.sources import SOURCES, Source, SourceFile
from stdiff.runtime.errors import writing
from stdiff.runtime.files import InputError, atomic_write, sha256_file, write_text
from stdiff.runtime.locks import file_lock


def fetch(collection: str, to: Path, archive: Sequence[Path] | None = None) -> Path:
    """Bring a published collection to ``to``; returns its folder, ready for ``harmonize``.

    Args:
        collection: a name in ``SOURCES``.
        to: folder for the collection's folder and its downloads.
        archive: files the user already has; then nothing is downloaded.

    Raises:
        InputError: see :func:`fetch_source`; or the collection is unknown.
    """
    if collection not in SOURCES:
        raise InputError(
            f"{collection!r}: unknown collection; expected one of {', '.join(sorted(SOURCES))}"
        )
    return fetch_source(SOURCES[collection], Path(to), archive or ())


def fetch_source(source: Source, to: Path, archives: Sequence[Path] = ()) -> Path:
    """:func:`fetch` of any source; repeated, it resumes a broken-off download.

    Raises:
        InputError: a file is missing, unsafe, damaged, or not of the published size or checksum;
            a transfer broke off; there is no disk space; the folder already exists.
    """
    folder = to / source.folder
    record = to / f".{source.folder}.source.json"
    with writing(to):
        to.mkdir(parents=True, exist_ok=True)
    # Two runs at once would write into one part file.
    with file_lock(to / f".{source.folder}.lock", remove=True, required=False) as alone:
        if not alone:
            raise InputError(
                f"{to}: another `stdiff fetch` is running here; wait until it has ended"
            )
        if folder.exists() and record.is_file():
            print(f"{folder}: already fetched; to fetch it again, move it away")
        elif folder.exists():
            raise InputError(
                f"{folder}: exists already, but no finished `stdiff fetch` made it; move it away "
                "or choose another folder with --to"
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
        print(f"left out, not in {source.folder}/: {len(unpacked.left_out)} file(s): {shown}")
    if archive.parent == folder.parent:
        print(f"{archive}: no longer needed")


def _put_beside(path: Path, target: Path) -> None:
    if target.exists():
        if sha256_file(target) != sha256_file(path):
            raise InputError(f"{target}: exists and differs from {path}; move one of them away")
        return
    with atomic_write(target) as temporary:
        shutil.copyfile(path, temporary)


def _given(source: Source, archives: Sequence[Path], to: Path) -> dict[SourceFile, Verified]:
    """The user's files, matched by suffix; a file not given may already be in ``to``."""
    by_suffix = {file.suffix: file for file in source.files}
    paths: dict[SourceFile, Path] = {}
    for path in map(Path, archives):
        if path.is_dir():
            raise InputError(
                f"--archive {path}: is a folder; an unpacked collection need not be fetched: "
                f"stdiff harmonize {source.collection} {path} --out {source.collection}.parquet"
            )
        if not path.is_file():
            raise InputError(f"--archive {path}: no such file")
        file = by_suffix.get(path.suffix.lower())
        if file is None or file in paths:
            expected = " and ".join(f"one {suffix}" for suffix in by_suffix)
            raise InputError(f"--archive {path}: expected {expected} file for {source.collection}")
        paths[file] = path
    for file in source.files:
        if file not in paths and not (to / file.name).is_file():
            raise InputError(
                f"{file.name}: missing; give it with another --archive, or put it in {to}. "
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
            f"{', '.join(missing)}: no known address allows an automatic download. {by_hand}. "
            f"Licence: {source.licence}. Cite: {source.citation}"
        )
    try:
        return {file: download(file, to) for file in source.files}
    except TransferError as error:
        raise InputError(f"{error}. {by_hand}. (Second-hand: {source.second_hand})") from error
