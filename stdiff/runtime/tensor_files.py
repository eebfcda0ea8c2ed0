"""Tensors in files with a digest, so that damage is detected, not trained on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from stdiff.runtime.files import atomic_write

Tensors = dict[str, torch.Tensor]


class Damaged(ValueError):
    """A tensor file that cannot be read, or whose digest does not match."""


def save_tensors(path: Path, tensors: Tensors, about: Mapping[str, Any] | None = None) -> None:
    """Write tensors atomically as safetensors, with a digest of their content.

    Args:
        path: file to write.
        tensors: on the CPU, contiguous.
        about: metadata, as JSON; :func:`about_tensors` reads it.

    Raises:
        SafetensorError, OSError: the disk is full, or the folder cannot be written to.
    """
    with atomic_write(path) as temporary:
        # One entry: safetensors writes several in varying order.
        said = {**(about or {}), "sha256": _digest(tensors)}
        save_file(tensors, temporary, metadata={"content": json.dumps(said, sort_keys=True)})


def load_tensors(path: Path) -> Tensors:
    """Read a file of :func:`save_tensors`, on the CPU.

    Raises:
        Damaged: it cannot be read, or its content has changed.
    """
    try:
        with safe_open(path, "pt") as handle:
            tensors = {key: handle.get_tensor(key) for key in handle.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise Damaged(f"{path}: damaged ({error})") from error
    if about_tensors(path).get("sha256") != _digest(tensors):
        raise Damaged(f"{path}: damaged (its tensors do not match their digest)")
    return tensors


def about_tensors(path: Path) -> dict[str, Any]:
    """The metadata given to :func:`save_tensors`; empty for a file from elsewhere.

    Raises:
        Damaged: it cannot be read.
    """
    try:
        with safe_open(path, "pt") as handle:
            return json.loads((handle.metadata() or {}).get("content", "{}"))
    except (SafetensorError, OSError, ValueError) as error:
        raise Damaged(f"{path}: damaged ({error})") from error


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
