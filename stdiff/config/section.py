"""A section of the configuration, and what its validators raise."""

from __future__ import annotations

import math
import typing
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationInfo, field_validator

# Beyond any setting; most would fill memory or never end.
_LARGEST = 1e12


class InvalidSetting(ValueError):
    """A setting that does not fit the others.

    Attributes:
        corrections: alternatives to write instead, the best first; each from key (dotted, below the
            section whose validator raises this) to value.
    """

    def __init__(self, message: str, *corrections: Mapping[str, Any]) -> None:
        super().__init__(message)
        self.corrections = corrections


class InvalidSettings(ValueError):
    """Several settings that do not fit one another."""

    def __init__(self, found: list[InvalidSetting]) -> None:
        super().__init__("; ".join(map(str, found)))
        self.found = found


class Section(BaseModel):
    """A section of the configuration: unknown keys are refused, values are immutable."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _no_bool_as_number(cls, value: Any, info: ValidationInfo) -> Any:
        allowed = _types(cls.model_fields[info.field_name or ""].annotation)
        given = value if isinstance(value, list | tuple) else [value]
        if bool not in allowed and any(isinstance(one, bool) for one in given):
            raise ValueError(f"{_as_yaml(value)} is no number or word")
        return value

    @field_validator("*", mode="after")
    @classmethod
    def _no_absurd_number(cls, value: Any) -> Any:
        for one in value if isinstance(value, tuple) else [value]:
            if isinstance(one, int | float) and abs(one) > _LARGEST:
                raise ValueError(f"{one:g} is more than {_LARGEST:g}")
        return value


def _types(annotation: Any) -> set[Any]:
    """The types that an annotation is made of."""
    parts = typing.get_args(annotation)
    return {annotation}.union(*map(_types, parts)) if parts else {annotation}


def _as_yaml(value: Any) -> str:
    return str(value).lower()


def is_positive(value: Any) -> bool:
    """Whether a raw value is a finite number above 0."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return number and 0 < value < math.inf
