"""Loading the components of a model folder, from safetensors only."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, AutoencoderTiny, DPMSolverMultistepScheduler
from diffusers.utils import logging as diffusers_logging
from transformers import AutoTokenizer, CLIPTextModel, PreTrainedTokenizerBase
from transformers.utils import logging as transformers_logging

from stdiff.diffusion.part_checks import (
    ModelFolderError,
    check_weights,
    class_of_part,
)

_AUTOENCODERS = {"AutoencoderTiny": AutoencoderTiny, "AutoencoderKL": AutoencoderKL}
_TOKENIZERS = (
    *("CLIPTokenizer", "CLIPTokenizerFast"),
    *("TokenizersBackend", "PreTrainedTokenizerFast"),  # names of one class in two versions
)


def load_part(cls: Any, folder: Path, name: str) -> Any:
    """One component in evaluation mode, from safetensors; weights of any precision become float32.

    Raises:
        ModelFolderError: it is missing, damaged, a pickle file, of another class or architecture,
            or has NaN or infinite weights.
    """
    path = folder / name
    is_text_encoder = issubclass(cls, CLIPTextModel)
    key = "architectures" if is_text_encoder else "_class_name"
    class_of_part(path / "config.json", key, (cls.__name__,))
    options: dict[str, Any] = {"variant": _variant(path), "torch_dtype": torch.float32}
    if is_text_encoder:
        options["ignore_mismatched_sizes"] = True  # they are listed in the report
    try:
        with quiet_diffusers():
            network, report = cls.from_pretrained(
                path,
                use_safetensors=True,
                local_files_only=True,
                output_loading_info=True,
                **options,
            )
    except Exception as error:  # a foreign configuration may raise anything
        reason = str(error).partition(". If you want instead")[0].partition(". If you want to")[0]
        raise ModelFolderError(
            f"{path}: cannot be loaded ({' '.join(reason.split())}); train the model again or "
            "restore the folder"
        ) from error
    check_weights(path, network, report)
    return network.eval()


def _variant(path: Path) -> str | None:
    """The variant of the weights to load, e.g. ``fp16``; None for files without one.

    Raises:
        ModelFolderError: there are no safetensors, or several variants to choose from.
    """
    names = sorted(file.name for file in path.glob("*.safetensors"))
    if not names:
        pickled = sorted(p.name for p in path.glob("*.bin"))
        found = f"only pickle files ({', '.join(pickled)})" if pickled else "no weights"
        raise ModelFolderError(
            f"{path}: {found}, expected *.safetensors; convert them with "
            "`save_pretrained(..., safe_serialization=True)`, or train the model again"
        )
    # model.safetensors, model-00001-of-00002.safetensors; model.fp16.safetensors and its parts.
    variants = {(name.split(".") + [""])[1].partition("-")[0] for name in names} - {"safetensors"}
    if any(name.count(".") == 1 for name in names):
        return None
    if len(variants) > 1 and "fp16" not in variants:
        raise ModelFolderError(
            f"{path}: weights in the variants {', '.join(sorted(variants))} only; save the one to "
            "use with `save_pretrained(...)` without variant"
        )
    return "fp16" if "fp16" in variants else variants.pop()


def load_autoencoder(folder: Path) -> AutoencoderTiny | AutoencoderKL:
    """An autoencoder of either class, as its ``config.json`` says.

    Raises:
        ModelFolderError: see :func:`load_part`.
    """
    config = folder / "config.json"
    if not config.is_file():
        raise ModelFolderError(
            f"{folder}: not an autoencoder (no config.json); give the output of "
            "`stdiff train autoencoder`"
        )
    name = class_of_part(config, "_class_name", tuple(_AUTOENCODERS))
    return load_part(_AUTOENCODERS[name], folder.parent, folder.name)


def load_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """The tokenizer of a CLIP text model, or one that stdiff made; no code is run.

    Raises:
        ModelFolderError: it is missing, damaged, of another class, or asks to run code.
    """
    class_of_part(folder / "tokenizer_config.json", "tokenizer_class", _TOKENIZERS)
    try:
        return AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # the tokenizers library raises plain exceptions
        raise ModelFolderError(
            f"{folder}: cannot be loaded ({' '.join(str(error).split())}); restore it or train the "
            "model again"
        ) from error


def load_scheduler(file: Path, settings: Mapping[str, Any]) -> DPMSolverMultistepScheduler:
    """A DPM-Solver with the settings of a ``scheduler_config.json``.

    Raises:
        ModelFolderError: the settings give no noise schedule.
    """
    try:
        scheduler = DPMSolverMultistepScheduler.from_config(dict(settings))
        signal = scheduler.alphas_cumprod
        if not ((signal >= 0) & (signal <= 1)).all():
            raise ValueError("its share of signal is not between 0 and 1")
    except Exception as error:  # a foreign configuration may raise anything
        raise ModelFolderError(
            f"{file}: no noise schedule ({error}); restore it or train the model again"
        ) from error
    return scheduler


@contextmanager
def quiet_diffusers() -> Iterator[None]:
    """Silence warnings of diffusers and transformers, e.g. about the missing safety checker."""
    libraries = (diffusers_logging, transformers_logging)
    levels = [library.get_verbosity() for library in libraries]
    for library in libraries:
        library.set_verbosity_error()
    try:
        yield
    finally:
        for library, level in zip(libraries, levels, strict=True):
            library.set_verbosity(level)
