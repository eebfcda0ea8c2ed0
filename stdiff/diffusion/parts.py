"""Loading the components of a model folder, from safetensors only."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from diffusers import AutoencoderKL, AutoencoderTiny
from diffusers.utils import logging as diffusers_logging
from safetensors import SafetensorError

from stdiff.runtime.files import SUMS, InputError, differing_files


class ModelFolderError(InputError):
    """A folder does not hold the expected model."""


def check_files(folder: Path) -> None:
    """Check the files of a model folder against their recorded hashes.

    Raises:
        ModelFolderError: files are damaged, changed or missing.
    """
    if differing := differing_files(folder):
        raise ModelFolderError(
            f"{folder}: {', '.join(differing)} is damaged or not the file that was written; copy "
            "it again, or delete the folder and rerun the step that made it. If you changed the "
            f"file on purpose, delete {SUMS}."
        )


def load_part(cls: Any, folder: Path, name: str) -> Any:
    """One component, from safetensors.

    Raises:
        ModelFolderError: it is missing, damaged, a pickle file, or of another architecture.
    """
    path = folder / name
    if not list(path.glob("*.safetensors")):
        pickled = sorted(p.name for p in path.glob("*.bin"))
        found = f"only pickle files ({', '.join(pickled)})" if pickled else "no weights"
        raise ModelFolderError(
            f"{path}: {found}, expected *.safetensors; convert them with "
            "`save_pretrained(..., safe_serialization=True)`, or train the model again"
        )
    try:
        with quiet_diffusers():
            return cls.from_pretrained(path, use_safetensors=True, local_files_only=True)
    except (SafetensorError, OSError, ValueError, RuntimeError) as error:
        raise ModelFolderError(
            f"{path}: cannot be loaded ({error}); train the model again or restore the folder"
        ) from error


def load_autoencoder(folder: Path) -> AutoencoderTiny | AutoencoderKL:
    """An autoencoder of either class, as its ``config.json`` says.

    Raises:
        ModelFolderError: it is missing or damaged.
    """
    check_files(folder)
    config = folder / "config.json"
    if not config.is_file():
        raise ModelFolderError(
            f"{folder}: not an autoencoder (no config.json); give the output of "
            "`stdiff train autoencoder`"
        )
    name = json.loads(config.read_text(encoding="utf-8")).get("_class_name")
    classes = {"AutoencoderTiny": AutoencoderTiny, "AutoencoderKL": AutoencoderKL}
    if name not in classes:
        raise ModelFolderError(
            f"{config}: _class_name is {name!r}; expected one of {', '.join(classes)}"
        )
    return load_part(classes[name], folder.parent, folder.name).eval()


@contextmanager
def quiet_diffusers() -> Iterator[None]:
    """Silence warnings about the missing safety checker."""
    level = diffusers_logging.get_verbosity()
    diffusers_logging.set_verbosity_error()
    try:
        yield
    finally:
        diffusers_logging.set_verbosity(level)
