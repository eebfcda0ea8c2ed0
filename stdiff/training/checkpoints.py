"""Checkpoints of the training loop: one safetensors file each, whole or absent."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError

from stdiff.runtime.files import InputError, sha256_bytes, write_text
from stdiff.runtime.locks import file_lock
from stdiff.runtime.tensor_files import Damaged, Tensors, load_tensors, save_tensors


class NotSaved(RuntimeError):
    """A checkpoint could not be written; the one before is whole and stays."""


@dataclass
class CheckpointFolder:
    """The checkpoints of one training, in a folder named by what is trained on what.

    ``identity`` says everything the result depends on (settings, data, the stage before). A
    training with another identity gets another folder: weights are never mixed, nothing is lost.
    """

    path: Path

    @classmethod
    def of(cls, state: Path, identity: dict[str, str]) -> CheckpointFolder:
        """The folder below ``state`` for this identity; nothing is written."""
        return cls(Path(state) / sha256_bytes(_text(identity).encode())[:12])

    @classmethod
    @contextmanager
    def open(cls, state: Path, identity: dict[str, str]) -> Iterator[CheckpointFolder]:
        """The folder below ``state`` for this identity, made if it is not there.

        It is this process' own until closed: a second one (started anew while a worker of a killed
        workflow still trains) waits, and then goes on from what the first has done. The lock is
        the kernel's, so it never outlives the process.
        """
        path = cls.of(state, identity).path
        record = path / "identity.json"
        if not record.exists():
            for other in sorted(Path(state).glob("*/identity.json")):
                known = json.loads(other.read_text())
                keys = sorted(k for k in identity if known.get(k) != identity[k])
                print(f"{other.parent} holds a training that differs in {', '.join(keys)}; kept")
            write_text(record, _text(identity))
        elif json.loads(record.read_text()) != identity:
            raise InputError(
                f"{record}: says another training than the folder's name; remove {path} to start "
                "anew, or restore the file"
            )
        waiting = f"{path}: another process trains here; waiting for it to end"
        with file_lock(path / "lock", waiting=waiting):
            yield cls(path)

    def save(self, images: int, tensors: Tensors, keep: int) -> None:
        """Write a checkpoint beside its name, rename it, then drop all but the newest ``keep``.

        Raises:
            NotSaved: the disk is full, or the folder cannot be written to.
        """
        here = {key: value.cpu().contiguous() for key, value in tensors.items()}
        try:
            save_tensors(self.path / f"checkpoint-{images:012d}.safetensors", here)
        except (SafetensorError, OSError) as error:
            size_mb = sum(value.nbytes for value in here.values()) / 2**20
            raise NotSaved(
                f"{self.path}: a checkpoint of {size_mb:.1f} MB at image {images} could not be "
                f"written ({error}); the one before is kept. Make room: the same command goes on "
                "from there."
            ) from error
        for old in self._newest_first()[keep:]:
            old.unlink()

    def load(self) -> tuple[int, Tensors] | None:
        """The newest whole checkpoint as (images, tensors); None when there is none.

        A file that cannot be read is named, left where it is, and passed over.
        """
        for file in self._newest_first():
            try:
                tensors = load_tensors(file)
            except Damaged as damage:
                print(f"{damage}; passed over")
                continue
            return int(file.stem.removeprefix("checkpoint-")), tensors
        return None

    def _newest_first(self) -> list[Path]:
        return sorted(self.path.glob("checkpoint-*.safetensors"), reverse=True)


def _text(identity: dict[str, str]) -> str:
    return json.dumps(identity, indent=1, sort_keys=True)
