"""A prior as text for people: how it is written, and what is wrong with one that was edited."""

from __future__ import annotations

import json
import reprlib
from typing import Any


def described(detail: Any) -> str:
    """One of pydantic's problems: where, what was found, what was expected."""
    where = ".".join(str(part) for part in detail["loc"] if part != "[key]")
    message = detail["msg"].removeprefix("Value error, ")
    if detail["type"] == "value_error":
        return message if message.startswith((f"{where}.", f"{where}:")) else f"{where}: {message}"
    found = "" if detail["type"] == "missing" else f"found {reprlib.repr(detail['input'])}; "
    return f"{where or 'the file'}: {found}{message[0].lower()}{message[1:]}"


def prior_text(values: dict[str, Any]) -> str:
    """JSON with one line for each item of the first two levels."""
    parts = []
    for name, value in values.items():
        text = _line(value)
        if isinstance(value, dict):
            items = (
                f"{json.dumps(k)}: {json.dumps(v, ensure_ascii=False)}" for k, v in value.items()
            )
            text = "{\n  " + ",\n  ".join(items) + "\n}"
        elif isinstance(value, list):
            text = "[\n  " + ",\n  ".join(map(_line, value)) + "\n]"
        parts.append(f"{_line(name)}: {text}")
    return "{\n" + ",\n".join(parts) + "\n}\n"


def _line(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
