"""The JSON text of a prior, and readable messages for errors in it."""

from __future__ import annotations

import json
import reprlib
from typing import Any


def error_line(detail: Any) -> str:
    """One error of pydantic in a line: key, value found, what was expected."""
    key = ".".join(str(part) for part in detail["loc"] if part != "[key]")
    message = detail["msg"].removeprefix("Value error, ")
    if detail["type"] == "value_error":
        return message if message.startswith((f"{key}.", f"{key}:")) else f"{key}: {message}"
    found = "" if detail["type"] == "missing" else f"found {reprlib.repr(detail['input'])}; "
    return f"{key or 'the file'}: {found}{message[0].lower()}{message[1:]}"


def to_json(values: dict[str, Any]) -> str:
    """JSON with one line for each item of the first two levels."""
    parts = []
    for name, value in values.items():
        text = _line(value)
        if isinstance(value, dict):
            items = (f"{json.dumps(k)}: {_line(v)}" for k, v in value.items())
            text = "{\n  " + ",\n  ".join(items) + "\n}"
        elif isinstance(value, list):
            text = "[\n  " + ",\n  ".join(map(_line, value)) + "\n]"
        parts.append(f"{_line(name)}: {text}")
    return "{\n" + ",\n".join(parts) + "\n}\n"


def _line(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
