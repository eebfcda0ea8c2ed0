"""Tensors in files with a digest, so that damage is detected, not trained on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from stdiff.runtime.errors import UnusableFile
from stdiff.runtime.files import atomic_write, sha256_bytes

Tensors = dict[str, torch.Tensor]


class Damaged(UnusableFile):
    """A tensor file that cannot be read, or whose digest does not match."""


def save_tensors(path: Path, tensors: Tensors, about: Mapping[str, Any] | None = None) -> None:
    """Write tensors atomically as safetensors, with digests of their content and metadata.

    Args:
        path: file to write.
        tensors: on the CPU, contiguous.
        about: metadata, as JSON; :func:`about_tensors` reads it.

    Raises:
        NotWritten: the disk is full, or the folder cannot be written to.
    """
    with atomic_write(path) as temporary:
        # One entry: safetensors writes several in varying order.
        said = {**(about or {}), "sha256": _digest(tensors)}
        said["about_sha256"] = _about_sha256(said)
        save_file(tensors, temporary, metadata={"content": json.dumps(said, sort_keys=True)})


def load_tensors(path: Path) -> Tensors:
    """Read a file of :func:`save_tensors`, on the CPU.

    Raises:
        Damaged: it is missing or damaged, or its content has changed.
        OSError: the operating system refuses to read it.
    """
    try:
        with _opened(path) as handle:
            tensors = {key: handle.get_tensor(key) for key in handle.keys()}  # noqa: SIM118
    except (SafetensorError, FileNotFoundError) as error:
        raise Damaged(f"{path}: damaged ({error})") from error
    if about_tensors(path).get("sha256") != _digest(tensors):
        raise Damaged(f"{path}: damaged (its tensors do not match their digest)")
    return tensors


def about_tensors(path: Path) -> dict[str, Any]:
    """The metadata given to :func:`save_tensors`; empty for a file from elsewhere.

    Raises:
        Damaged: it is missing or damaged, or the metadata has changed.
        OSError: the operating system refuses to read it.
    """
    try:
        with _opened(path) as handle:
            said = json.loads((handle.metadata() or {}).get("content", "{}"))
    except (SafetensorError, FileNotFoundError, ValueError) as error:
        raise Damaged(f"{path}: damaged ({error})") from error
    if said.pop("about_sha256", None) not in (None, _about_sha256(said)):
        raise Damaged(f"{path}: damaged (its metadata does not match its digest)")
    return said


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """The opened file; safetensors takes every error of the system for a missing file."""
    with Path(path).open("rb"), safe_open(path, "pt") as handle:
        yield handle


def _about_sha256(said: Mapping[str, Any]) -> str:
    return sha256_bytes(json.dumps(said, sort_keys=True).encode())


def not_finite(tensors: Mapping[str, torch.Tensor]) -> list[str]:
    """Names of the tensors with a NaN or infinite value."""
    return [name for name, value in tensors.items() if not torch.isfinite(value).all()]


def _digest(tensors: Tensors) -> str:
    """SHA-256 of names, types, shapes and values."""
    digest = hashlib.sha256()
    for name, value in sorted(tensors.items()):
        digest.update(f"{name}\0{value.dtype}\0{tuple(value.shape)}\n".encode())
        digest.update(value.contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()
