"""What a model folder says of itself, read without torch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from stdiff.runtime.files import InputError

ABOUT = "stdiff.json"
# Stages whose models are conditioned on masks and captions.
CONDITIONAL_STAGES = ("finetune", "distill")


class ModelFolderError(InputError):
    """A folder does not hold the expected model."""


def read_about(folder: Path) -> dict[str, Any]:
    """Image size, stage, model configuration and training cases of a model.

    Raises:
        ModelFolderError: not a model folder.
    """
    folder = Path(folder)
    if not (folder / ABOUT).is_file():
        found = sorted(p.name for p in folder.iterdir()) if folder.is_dir() else []
        raise ModelFolderError(
            f"{folder}: not an stdiff model folder (no {ABOUT}; found "
            f"{', '.join(found) or 'nothing'}); "
            "give the output of `stdiff train pretrain` or `stdiff train finetune`"
        )
    about = read_part_json(folder / ABOUT)
    if type(size_px := about.get("size_px")) is not int:
        raise ModelFolderError(
            f"{folder / ABOUT}: size_px is {size_px!r}, expected a number of pixels; restore the "
            "file or train the model again"
        )
    return about


def read_part_json(file: Path) -> dict[str, Any]:
    """A JSON object of a model folder.

    Raises:
        ModelFolderError: it is missing or damaged.
    """
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ModelFolderError(f"{file}: missing; restore it or train the model again") from None
    except (ValueError, RecursionError) as error:
        raise ModelFolderError(
            f"{file}: not a JSON object ({error}); restore it or train the model again"
        ) from error
    if not isinstance(content, dict):
        raise ModelFolderError(
            f"{file}: holds a {type(content).__name__}, expected a JSON object; restore it or "
            "train the model again"
        )
    return content


def read_conditional(folder: Path) -> dict[str, Any]:
    """:func:`read_about` of a model that takes masks and captions.

    Raises:
        ModelFolderError: not a model folder, or one of stage 1.
    """
    about = read_about(folder)
    if (stage := about.get("stage")) not in CONDITIONAL_STAGES:
        raise ModelFolderError(
            f"{folder}: is a model of stage {stage!r}, which takes neither masks nor captions; "
            "give the output of `stdiff train finetune`"
        )
    return about
