"""Download one file over http(s), resuming a broken-off transfer, and verify it.

The project's own, since pooch restarts a broken-off download and some collections have gigabytes.
Bytes are appended to ``NAME.part``; ``NAME.part.json`` records the file's version (ETag or date),
so that parts of two versions are never joined.
"""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import re
import urllib.error
import urllib.request
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO
from urllib.parse import urlsplit

from tqdm import tqdm

from stdiff.fetching.archives import require_space
from stdiff.fetching.sources import SourceFile
from stdiff.runtime.errors import NotWritten, writing
from stdiff.runtime.files import InputError, sha256_file, write_text

TIMEOUT_S = 60
_CHUNK_BYTES = 2**20


@dataclass(frozen=True)
class Verified:
    """A file that passed all known checks, and its SHA-256."""

    path: Path
    sha256: str


class TransferError(InputError):
    """The server sent no file, another file, or only part of it."""


@dataclass(frozen=True)
class _Begun:
    """Version of the file that the part file belongs to, as ``NAME.part.json`` records it."""

    address: str
    etag: str | None
    last_modified: str | None
    size_bytes: int | None

    @property
    def validator(self) -> str | None:
        """Value for If-Range; weak ETags do not imply equal bytes (RFC 9110, 13.1.5)."""
        strong = self.etag and not self.etag.startswith("W/")
        return self.etag if strong else self.last_modified

    @property
    def outlook(self) -> str:
        """Advice to the user after a broken-off transfer."""
        if self.validator:
            return "the received part is kept; run the same command again to resume"
        return (
            "run the same command again; it starts from the beginning, since this server sends "
            "no ETag or date to confirm that its file is unchanged"
        )

    @classmethod
    def of(cls, address: str, headers: http.client.HTTPMessage, start: int) -> _Begun:
        length = headers.get("Content-Length")
        size_bytes = start + int(length) if length and length.isdecimal() else None
        return cls(address, headers.get("ETag"), headers.get("Last-Modified"), size_bytes)


def download(file: SourceFile, folder: Path) -> Verified:
    """Download to ``folder / file.name``, resuming from ``.part`` if an earlier run left one.

    It resumes only if the server confirms (ETag or date) that its file is unchanged.

    Raises:
        TransferError: no connection, an error status, a web page or another size instead of the
            file, or a broken-off transfer, whose part file is kept.
        InputError: no disk space, or not the published checksum (the file is kept with the suffix
            ``.refused``).
    """
    final = folder / file.name
    if final.is_file():
        return verify_file(final, file)
    part, note = (folder / f"{file.name}.{suffix}" for suffix in ("part", "part.json"))
    begun = _read_note(note, file.address)
    start = part.stat().st_size if begun and part.is_file() else 0
    if not (begun and start and start == begun.size_bytes):  # else killed just before the end
        try:
            _transfer(file, part, note, begun if start else None, start)
        except NotWritten:
            raise
        except (OSError, http.client.HTTPException) as error:
            raise TransferError(f"{file.name}: {file.address}: {error}") from error
    try:
        verified = verify_file(part, file)
    except InputError:
        refused = folder / f"{file.name}.refused"
        os.replace(part, refused)
        note.unlink()
        print(f"{refused}: kept for inspection")
        raise
    with part.open("rb") as handle:
        os.fsync(handle.fileno())
    os.replace(part, final)
    note.unlink()
    return Verified(final, verified.sha256)


def _read_note(note: Path, address: str | None) -> _Begun | None:
    """None if the part is from another address, or its version cannot be confirmed."""
    try:
        begun = _Begun(**json.loads(note.read_text(encoding="utf-8")))
    except (FileNotFoundError, ValueError, TypeError):
        return None
    return begun if begun.address == address and begun.validator else None


def _transfer(file: SourceFile, part: Path, note: Path, begun: _Begun | None, had: int) -> None:
    """Complete the part file, or start it anew if the server does not resume."""
    response, start = _open(file.address or "", begun, had)
    with response:
        if had and not start:
            print(f"{file.name}: the server does not resume from byte {had}; starting anew")
        if response.status not in (200, 206) or response.headers.get_content_type() == "text/html":
            raise TransferError(
                f"{file.name}: {file.address} sent a web page or nothing (status "
                f"{response.status}) instead of the file"
            )
        now = _Begun.of(file.address or "", response.headers, start)
        if now.size_bytes and file.size_bytes not in (None, now.size_bytes):
            raise TransferError(
                f"{file.name}: the server offers {now.size_bytes} bytes, expected "
                f"{file.size_bytes}; the publisher has replaced the file, or it is another one"
            )
        size_bytes = now.size_bytes or file.size_bytes
        require_space(part.parent, (size_bytes or 0) - start, f"download {file.name}")
        if not start:
            # This order: a kill in between must not leave old bytes under a new note.
            with writing(part):
                note.unlink(missing_ok=True)
                part.write_bytes(b"")
            write_text(note, json.dumps(asdict(now)))
        _append(response, part, start, size_bytes, after_break_off=now.outlook)
    got = part.stat().st_size
    if size_bytes and got != size_bytes:
        raise TransferError(
            f"{file.name}: the transfer broke off after {got} of {size_bytes} bytes; {now.outlook}"
        )


def _append(
    response: http.client.HTTPResponse,
    part: Path,
    start: int,
    size_bytes: int | None,
    after_break_off: str,
) -> None:
    progress = tqdm(
        total=size_bytes, initial=start, desc=part.stem, unit="B", unit_scale=True, disable=None
    )
    with progress, writing(part), part.open("ab") as out:
        try:
            while chunk := response.read1(_CHUNK_BYTES):
                with writing(part):
                    out.write(chunk)
                progress.update(len(chunk))
        except NotWritten:
            raise
        except (OSError, http.client.HTTPException) as error:
            reason = error or type(error).__name__
            raise TransferError(
                f"{part.stem}: the transfer broke off ({reason}); {after_break_off}"
            ) from error


def _open(address: str, begun: _Begun | None, had: int) -> tuple[http.client.HTTPResponse, int]:
    """The response and its first byte: ``had`` if the server resumes there, else 0."""
    if begun:
        try:
            headers = {"Range": f"bytes={had}-", "If-Range": begun.validator or ""}
            response = _request(address, headers)
        except urllib.error.HTTPError as error:
            if error.code not in (412, 416):
                raise
        else:
            if response.status == 200:
                return response, 0
            if _resumes(response, begun, had):
                return response, had
            response.close()
    return _request(address, {}), 0


def _resumes(response: http.client.HTTPResponse, begun: _Begun, had: int) -> bool:
    """Whether it is the rest of the same file; some servers obey Range but ignore If-Range."""
    given = response.headers.get("Content-Range", "")
    match = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", given)
    if response.status != 206 or not match or int(match[1]) != had:
        return False
    if begun.size_bytes and match[2] not in ("*", str(begun.size_bytes)):
        return False
    now = _Begun.of(begun.address, response.headers, had)
    return now.validator in (None, begun.validator)


class _HttpOnly(urllib.request.HTTPRedirectHandler):
    """Refuses redirects to other schemes, and from https to http."""

    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: http.client.HTTPMessage,
        newurl: str,
    ) -> urllib.request.Request | None:
        _require_http(newurl, secure=urlsplit(req.full_url).scheme == "https")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _require_http(address: str, secure: bool = False) -> None:
    allowed = ("https",) if secure else ("https", "http")
    if urlsplit(address).scheme not in allowed:
        raise TransferError(f"{address}: only {' and '.join(allowed)} addresses are fetched here")


def _request(address: str, headers: dict[str, str]) -> http.client.HTTPResponse:
    _require_http(address)
    request = urllib.request.Request(
        address, headers={"User-Agent": "stdiff", "Accept-Encoding": "identity", **headers}
    )
    return urllib.request.build_opener(_HttpOnly).open(request, timeout=TIMEOUT_S)


def verify_file(path: Path, file: SourceFile) -> Verified:
    """Check a file's size and checksums, and print the outcome.

    Raises:
        InputError: size or checksum differ from those its host publishes.
    """
    way_out = (
        "If it is a repacked copy that you trust, unpack it by hand and give the folder to "
        "`stdiff harmonize`"
    )
    size_bytes = path.stat().st_size
    if file.size_bytes not in (None, size_bytes):
        raise InputError(
            f"{path}: {size_bytes} bytes, expected {file.size_bytes} for {file.name}. {way_out}"
        )
    sha256 = sha256_file(path)
    for checksum in file.checksums:
        name = checksum.algorithm.upper()
        found = sha256 if checksum.algorithm == "sha256" else _digest(path, checksum.algorithm)
        known = " and ".join(checksum.hexdigests)
        if checksum.fits(found):
            print(f"{path.name}: {name} {found}, as {_by_whom(checksum.published)}")
        elif checksum.published:
            raise InputError(f"{path}: {name} {found}, expected {known} for {file.name}. {way_out}")
        else:
            print(
                f"{path.name}: {name} {found} differs from {known}, as "
                f"{_by_whom(False)}: another release, or packed anew"
            )
    if not any(checksum.published for checksum in file.checksums):
        print(
            f"{path.name}: its host publishes no checksum to compare with; "
            f"{size_bytes} bytes, SHA-256 {sha256} (note it down to recognise the file)"
        )
    return Verified(path, sha256)


def _by_whom(published: bool) -> str:
    return "its host publishes it" if published else "others recorded it"


def _digest(path: Path, algorithm: str) -> str:
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, algorithm).hexdigest()
