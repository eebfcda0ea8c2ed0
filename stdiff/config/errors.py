"""Validation errors of the configuration in words, with the YAML to write instead."""

from __future__ import annotations

import difflib
import math
import re
import typing
from typing import Any

import yaml
from pydantic import BaseModel, TypeAdapter
from pydantic.fields import FieldInfo

# Plausible values of keys without a default.
_EXAMPLES: dict[str, Any] = {
    "run": "my_run",
    "data_root": "FOLDER",
    "collections": {"busi": {"path": "Dataset_BUSI_with_GT"}},
    "path": "Dataset_BUSI_with_GT",
    "limit": 200,
    "images": 6400,
    "training": {stage: {"images": 6400} for stage in ("autoencoder", "pretrain", "finetune")},
    "count": 500,
    "folds": 5,
    "kind": "mixed",
}


def explain(detail: Any, root: type[BaseModel]) -> str:
    """One error of pydantic with its key, its value and the corrected YAML.

    Args:
        detail: An item of ``ValidationError.errors()``.
        root: The model that was validated.
    """
    location = [str(part) for part in detail["loc"] if part != "[key]"]
    key, value = ".".join(location) or "(top level)", detail["input"]
    message = detail["msg"].removeprefix("Value error, ")
    # Our own validators show value and YAML; a file that is no mapping has no key.
    if detail["type"] == "value_error" or not location:
        return f"- {key}: {message}"
    if detail["type"] == "extra_forbidden":
        known = list(_section_at(location[:-1], root).model_fields)
        near = difflib.get_close_matches(location[-1], known, n=1)
        hint = f"did you mean `{near[0]}`?" if near else f"expected one of {', '.join(known)}"
        mend = _as_yaml([*location[:-1], near[0]], value) if near else "      (remove the line)"
        return f"- {key}: {value!r}: unknown key; {hint}\n{mend}"
    if "[key]" in detail["loc"]:  # a name outside a fixed choice
        known = re.findall(r"'(\w+)'", message)
        near = (difflib.get_close_matches(location[-1], known, n=1) or known)[0]
        mend = _as_yaml([*location[:-1], near], _required(_section_at(location, root)))
        return f"- {key}: unknown name; expected one of {', '.join(known)}\n{mend}"
    # An invalid element of a list: show the whole list.
    while location[-1].isdigit():
        location.pop()
    mend = _as_yaml(location, _example(location, root))
    if detail["type"] == "missing":
        return f"- {key}: missing; add\n{mend}"
    return f"- {key}: {value!r}: {message}\n{mend}"


def section_of(field: FieldInfo) -> type[BaseModel] | None:
    """The model of a field that is a section, optional or in a dict; else None."""
    waiting = [field.annotation]
    while waiting:
        annotation = waiting.pop()
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            return annotation
        waiting += typing.get_args(annotation)
    return None


def _section_at(location: list[str], root: type[BaseModel]) -> type[BaseModel]:
    """The model at a key path (names in a dict of sections are skipped)."""
    model = root
    for part in location:
        if part in model.model_fields:
            model = section_of(model.model_fields[part]) or model
    return model


def _example(location: list[str], root: type[BaseModel]) -> Any:
    """A valid value: a plausible one, or the default."""
    field = _section_at(location[:-1], root).model_fields.get(location[-1])
    if field is not None and location[-1] in _EXAMPLES:
        return _EXAMPLES[location[-1]]
    if field is None or field.is_required() or field.default is None:
        return _required(_section_at(location, root))
    return field.default


def _required(section: type[BaseModel]) -> dict[str, Any]:
    """The required keys of a section, with plausible values."""
    return {
        name: _EXAMPLES[name] if name in _EXAMPLES else _required(section_of(field))
        for name, field in section.model_fields.items()
        if field.is_required()
    }


def _as_yaml(location: list[str], value: Any) -> str:
    """A value below its keys, one key per line."""
    plain = TypeAdapter(Any).dump_python(value, mode="json")
    text = yaml.safe_dump(plain, sort_keys=False, default_flow_style=True, width=math.inf)
    keys = [f"{'  ' * depth}{part}:" for depth, part in enumerate(location)]
    keys[-1] += " " + text.removesuffix("...\n").strip()
    return "\n".join(f"      {line}" for line in keys)
