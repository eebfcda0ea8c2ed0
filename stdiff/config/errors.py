"""Validation errors of the configuration in words, with the YAML to write instead.

A suggestion is only shown if the validator accepts it in place of what it refused.
"""

from __future__ import annotations

import copy
import math
import re
import typing
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import yaml
from pydantic import BaseModel, TypeAdapter, ValidationError
from pydantic.fields import FieldInfo

from stdiff.config.data import COLLECTION_FOLDERS
from stdiff.config.section import InvalidSetting, InvalidSettings
from stdiff.runtime.errors import nearest

KeyPath = tuple[str, ...]  # key path
Correction = Mapping[KeyPath, Any]
_LONGEST = 80
_LONGEST_TEXT = 500


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong.

    Attributes:
        key_path: of the key at fault, or of its section.
        corrections: alternatives to write instead, the best first.
        removed: key that goes before they are written.
        about_several: it is about several keys, of which ``key_path`` is only one.
    """

    key_path: KeyPath
    text: str
    corrections: tuple[Correction, ...] = ()
    removed: KeyPath = ()
    about_several: bool = False

    def corrected(self, values: dict[str, Any], correction: Correction) -> dict[str, Any]:
        """The values with one of the corrections."""
        values = copy.deepcopy(values)
        if self.removed:
            del value_at(values, self.removed[:-1])[self.removed[-1]]
        for key_path, value in correction.items():
            inner: Any = values
            for key in key_path[:-1]:
                if not isinstance(inner.get(key), dict):
                    inner[key] = {}
                inner = inner[key]
            inner[key_path[-1]] = value
        return values


@dataclass(frozen=True)
class _Place:
    """Where an error is: a field of a section, or an entry of a field that is a dict."""

    key_path: KeyPath
    section: type[BaseModel]
    field: FieldInfo | None  # None for a key that the section does not know
    is_entry: bool = False


def problems_of(values: Any, root: type[BaseModel]) -> list[Problem]:
    """Everything that is wrong with the values; a key that is wrong in two ways is named once."""
    try:
        root.model_validate(values)
    except ValidationError as error:
        found = [one for detail in error.errors() for one in _of_detail(detail, values, root)]
        renamed = [one.key_path for one in found if one.removed]
        kept: dict[Any, Problem] = {}
        for one in found:
            if not any(
                one.key_path[: len(key_path)] == key_path != one.key_path for key_path in renamed
            ):
                # A value is tried as each of the types that its key may have.
                kept.setdefault(one.text if one.about_several else one.key_path, one)
        return list(kept.values())
    return []


def suggestion(problem: Problem, values: Any, root: type[BaseModel]) -> str:
    """The YAML to write instead, indented; empty if the validator accepts no correction."""
    if problem.removed and not problem.corrections:
        return "      (remove the line)"
    before = {one.text for one in problems_of(values, root)}
    second_best = ""
    for correction in problem.corrections:
        after = problems_of(problem.corrected(values, correction), root)
        if {one.text for one in after} < before:
            return _as_yaml(correction)
        # Corrected, but a mistake is seen that this one hid.
        if not second_best and not any(
            one.key_path[:1] in {w[:1] for w in correction} for one in after
        ):
            second_best = _as_yaml(correction)
    return second_best


def section_of(field: FieldInfo) -> type[BaseModel] | None:
    """The model of a field that is a section, optional or in a dict; else None."""
    waiting = [field.annotation]
    while waiting:
        annotation = waiting.pop()
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            return annotation
        waiting += typing.get_args(annotation)
    return None


def _of_detail(detail: Any, values: Any, root: type[BaseModel]) -> Iterator[Problem]:
    raised = detail.get("ctx", {}).get("error")
    message = " ".join(detail["msg"].removeprefix("Value error, ").split())
    place = _place(detail["loc"], root)
    key_path, key = place.key_path, ".".join(place.key_path)
    if isinstance(raised, InvalidSettings | InvalidSetting):
        # Keys are named below the section, also by the validator of one field.
        is_field = place.field is not None and section_of(place.field) is None
        below = key_path[:-1] if is_field else key_path
        for one in raised.found if isinstance(raised, InvalidSettings) else [raised]:
            corrections = tuple(
                {(*below, *k.split(".")): v for k, v in m.items()} for m in one.corrections
            )
            text = _short(" ".join((f"{key}: {one}" if key else str(one)).split()), _LONGEST_TEXT)
            yield Problem(next(iter(corrections[0])), text, corrections, about_several=True)
    elif not key_path:  # a file that is no mapping has no key
        yield Problem((), message)
    elif detail["type"] == "extra_forbidden":
        yield _unknown_key(place, detail["input"])
    elif "[key]" in detail["loc"]:
        known = re.findall(r"'(\w+)'", message)
        text = f"{key}: unknown name; expected one of {', '.join(known)}"
        yield _unknown_name(place, text, known, values)
    elif detail["type"] == "missing" and value_at(values, key_path) is None:
        yield Problem(key_path, f"{key}: missing; add", _corrections(place))
    else:
        value = value_at(values, key_path)
        shown = "" if detail["type"] == "value_error" else f"{_shown(value)}: "
        section = section_of(place.field) if place.field else None
        named: tuple[Correction, ...] = ()
        if section and isinstance(value, list) and all(isinstance(one, str) for one in value):
            named = ({key_path: {name: _required(section, name) for name in value}},)  # names only
        if detail["type"] == "missing":
            message = "Too few values"
        yield Problem(key_path, f"{key}: {shown}{message}", (*named, *_corrections(place)))


def _place(location: tuple[Any, ...], root: type[BaseModel]) -> _Place:
    """The place of an error, without positions in lists and the types that were tried."""
    section, key_path = root, []
    parts = [str(part) for part in location if part != "[key]"]
    while parts:
        key_path.append(parts.pop(0))
        field = section.model_fields.get(key_path[-1])
        inner = section_of(field) if field else None
        if parts and field and typing.get_origin(field.annotation) is dict:
            key_path.append(parts.pop(0))
            if not parts or inner is None:
                return _Place(tuple(key_path), section, field, is_entry=True)
        if inner is None or not parts:
            return _Place(tuple(key_path), section, field)
        section = inner
    return _Place((), root, None)


def _unknown_key(place: _Place, value: Any) -> Problem:
    known = list(place.section.model_fields)
    near = nearest(place.key_path[-1], known, cutoff=0.6)
    hint = f"did you mean `{near[0]}`?" if near else f"expected one of {', '.join(known)}"
    text = f"{'.'.join(place.key_path)}: {_shown(value)}: unknown key; {hint}"
    if not near:
        return Problem(place.key_path, text, removed=place.key_path)
    meant = _Place(
        (*place.key_path[:-1], near[0]), place.section, place.section.model_fields[near[0]]
    )
    return Problem(
        place.key_path,
        text,
        ({meant.key_path: value}, *_corrections(meant)),
        removed=place.key_path,
    )


def _unknown_name(place: _Place, text: str, known: list[str], values: Any) -> Problem:
    """A name outside the fixed choice of a dict's keys."""
    name = (nearest(place.key_path[-1], known, cutoff=0.6) or known)[0]
    key_path, given = (*place.key_path[:-1], name), value_at(values, place.key_path)
    section = section_of(place.field) if place.field else None
    required = _required(section, name) if section else None
    return Problem(
        place.key_path, text, ({key_path: given}, {key_path: required}), removed=place.key_path
    )


def _corrections(place: _Place) -> tuple[Correction, ...]:
    """Values to write instead, the best first."""
    field, section = place.field, section_of(place.field) if place.field else None
    if field is None:
        return ()
    if place.is_entry:
        if section:
            name = place.key_path[-1]
            usual = {} if field.is_required() else field.default
            given = [usual[name].model_dump(exclude_defaults=True)] if name in usual else []
            return tuple({place.key_path: one} for one in (*given, _required(section, name)))
        return ({place.key_path[:-1]: field.get_default(call_default_factory=True)},)
    found = list(field.examples or [])
    if not field.is_required() and field.default is not None:
        found.append(field.default)
    if section and typing.get_origin(field.annotation) is not dict:
        found.append(_required(section, place.key_path[-1]))
    if not field.is_required() and field.default is None:
        found.append(None)
    if typing.get_origin(field.annotation) is Literal:
        found += typing.get_args(field.annotation)
    return tuple({place.key_path: value} for value in found)


def _required(section: type[BaseModel], name: str) -> dict[str, Any]:
    """The required keys of a section with plausible values; ``name``: that of the section."""
    values = {
        key: field.examples[0] if field.examples else _required(section_of(field), key)
        for key, field in section.model_fields.items()
        if field.is_required()
    }
    return values | {"path": COLLECTION_FOLDERS[name]} if name in COLLECTION_FOLDERS else values


def value_at(values: Any, key_path: KeyPath) -> Any:
    """The value at a key path; None if there is none."""
    for key in key_path:
        values = values.get(key) if isinstance(values, dict) else None
    return values


def _shown(value: Any) -> str:
    return _short(repr(value), _LONGEST)


def _short(text: str, longest: int) -> str:
    return text if len(text) <= longest else text[: longest - 3] + "..."


def _as_yaml(correction: Correction) -> str:
    """Values below their keys, one key per line, indented by six."""
    lines, before = [], ()
    for key_path, value in correction.items():
        plain = TypeAdapter(Any).dump_python(value, mode="json")
        text = yaml.safe_dump(plain, sort_keys=False, default_flow_style=True, width=math.inf)
        shared = next((i for i, pair in enumerate(zip(key_path, before)) if len(set(pair)) > 1), 0)  # noqa: B905
        keys = [f"{'  ' * depth}{key}:" for depth, key in enumerate(key_path)]
        keys[-1] += " " + text.removesuffix("...\n").strip()
        lines += keys[shared:]
        before = key_path
    return "\n".join(f"      {line}" for line in lines)
