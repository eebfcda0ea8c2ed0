"""Checkpoints of the training loop: one safetensors file each, written atomically."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stdiff.runtime.errors import NotWritten
from stdiff.runtime.files import SEAL, InputError, sealed, sha256_bytes, unsealed, write_text
from stdiff.runtime.locks import file_lock
from stdiff.runtime.tensor_files import Damaged, Tensors, about_tensors, load_tensors, save_tensors


class NotSaved(RuntimeError):
    """A checkpoint could not be written; the previous one is kept."""


@dataclass
class CheckpointFolder:
    """Checkpoints of one training.

    The folder's name is a hash of ``identity``: everything the weights depend on (settings, data,
    the stage before). A training with another identity uses another folder, so weights are never
    mixed and nothing is deleted.
    """

    path: Path

    @classmethod
    def of(cls, state: Path, identity: dict[str, str]) -> CheckpointFolder:
        """The folder below ``state`` for this identity; writes nothing."""
        return cls(Path(state) / sha256_bytes(_text(identity).encode())[:12])

    @classmethod
    @contextmanager
    def open(cls, state: Path, identity: dict[str, str]) -> Iterator[CheckpointFolder]:
        """Create the folder if needed and lock it until the context is closed.

        A second process (restarted while a worker of a killed workflow still trains) waits for the
        lock and then resumes from the first one's checkpoints. The kernel releases the lock when
        its process ends.
        """
        path = cls.of(state, identity).path
        record = path / "identity.json"
        known = _read_identity(record)
        if known is None:
            for other in sorted(Path(state).glob("*/identity.json")):
                found = _read_identity(other) or {}
                keys = sorted(k for k in identity if found.get(k) != identity[k])
                print(f"{other.parent} holds a training that differs in {', '.join(keys)}; kept")
            # The folder's name says it too, so that a damaged record is no reason to train again.
            write_text(record, _text(sealed(identity)))
        elif known != identity:
            raise InputError(
                f"{record}: does not match the name of its folder; restore the file, or remove "
                f"{path} to train again"
            )
        waiting = f"{path}: another process trains here; waiting for it to end"
        with file_lock(path / "lock", waiting=waiting):
            yield cls(path)

    def save(
        self, images: int, tensors: Tensors, keep: int, about: Mapping[str, Any] | None = None
    ) -> None:
        """Write a checkpoint with metadata, then delete all but the newest ``keep``.

        Raises:
            NotSaved: the disk is full, or the folder is not writable.
        """
        here = {key: value.cpu().contiguous() for key, value in tensors.items()}
        try:
            save_tensors(self.path / f"checkpoint-{images:012d}.safetensors", here, about)
        except NotWritten as error:
            size_mb = sum(value.nbytes for value in here.values()) / 2**20
            raise NotSaved(
                f"{self.path}: cannot write the checkpoint of {size_mb:.1f} MB at image {images} "
                f"({error.strerror}); the previous one is kept. Free disk space and run the same "
                "command to resume."
            ) from error
        for old in self._newest_first()[keep:]:
            old.unlink()

    def load(
        self, fits: Callable[[int, dict[str, Any]], bool] = lambda images, about: True
    ) -> tuple[int, Tensors] | None:
        """The newest intact checkpoint as (images, tensors); None if there is none.

        Damaged files are reported and kept.

        Args:
            fits: whether a checkpoint of so many images and this metadata can be resumed from.
        """
        for file in self._newest_first():
            images = int(file.stem.removeprefix("checkpoint-"))
            try:
                if fits(images, about_tensors(file)):
                    return images, load_tensors(file)
            except Damaged as damage:
                print(f"{damage}; skipped")
        return None

    def _newest_first(self) -> list[Path]:
        return sorted(self.path.glob("checkpoint-*.safetensors"), reverse=True)


def _read_identity(record: Path) -> dict[str, str] | None:
    """The identity in a record; None if it is missing or damaged."""
    if not record.is_file():
        return None
    try:
        found = json.loads(record.read_bytes())
        identity = unsealed(found)
        if SEAL not in found:
            raise ValueError(f"{SEAL} is missing")
        return identity
    except ValueError as error:
        print(f"{record}: damaged ({error}); passed over")
        return None


def _text(identity: dict[str, str]) -> str:
    return json.dumps(identity, indent=1, sort_keys=True)
