"""Where the public collections come from: the rows of sources.yaml."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml


@dataclass(frozen=True)
class Checksum:
    """Hex digests of a file: ``published`` by its host and binding, or recorded by others.

    Attributes:
        hexdigests: of the copies that are known; one that was recorded may be cut short.
    """

    algorithm: str
    hexdigests: tuple[str, ...]
    published: bool

    def fits(self, found: str) -> bool:
        """Whether a file's digest is that of a known copy."""
        return found.startswith(self.hexdigests)


@dataclass(frozen=True)
class SourceFile:
    """One file of a collection.

    Attributes:
        name: file name on disk; a ``.zip`` is unpacked, other files stay beside the folder.
        address: http(s) URL; None if it must be downloaded by hand.
        size_bytes: None if unknown.
    """

    name: str
    address: str | None
    size_bytes: int | None = None
    checksums: tuple[Checksum, ...] = ()

    @property
    def suffix(self) -> str:
        """Such as ``.zip``, in lower case."""
        return Path(self.name).suffix.lower()


@dataclass(frozen=True)
class Source:
    """A published collection.

    Attributes:
        folder: name of its top folder, as the reader expects it.
        holds: entries of that folder, by which it is found in an archive.
        by_hand: which file to download from the landing page if fetching fails.
        second_hand: origin of the facts above that were not checked against the live server.
    """

    collection: str
    title: str
    folder: str
    holds: tuple[str, ...]
    files: tuple[SourceFile, ...]
    landing_page: str
    licence: str
    citation: str
    by_hand: str
    second_hand: str


def _source(collection: str, row: dict[str, Any]) -> Source:
    files = []
    for file in row.pop("files"):
        kinds = {kind: file.pop(kind, {}) for kind in ("published", "recorded")}
        checksums = tuple(
            Checksum(algorithm, tuple(digests.split()), published=kind == "published")
            for kind, by_algorithm in kinds.items()
            for algorithm, digests in by_algorithm.items()
        )
        files.append(SourceFile(**file, checksums=checksums))
    return Source(collection, files=tuple(files), holds=tuple(row.pop("holds")), **row)


SOURCES: dict[str, Source] = {
    name: _source(name, row)
    for name, row in yaml.safe_load(
        Path(__file__).with_suffix(".yaml").read_text(encoding="utf-8")
    ).items()
}
