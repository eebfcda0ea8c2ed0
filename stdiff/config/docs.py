"""Write the configuration's schema and manual tables from its models.

``python -m stdiff.config.docs`` writes ``workflow/schemas/config.schema.json`` and the tables of
``config/README.md``; with ``--check`` it writes nothing and exits 1 if either is out of date.
"""

from __future__ import annotations

import argparse
import inspect
import json
import sys
import typing
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from stdiff.config.errors import section_of
from stdiff.config.run import Config
from stdiff.runtime.files import InputError, write_text

ROOT = Path(__file__).parents[2]
SCHEMA = Path("workflow/schemas/config.schema.json")
MANUAL = Path("config/README.md")
BEGIN = "<!-- tables: written by `python -m stdiff.config.docs` -->"
END = "<!-- end of tables -->"

_LIMITS = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<"}


def schema_text() -> str:
    """The JSON schema of the configuration."""
    return json.dumps(Config.model_json_schema(), indent=1, ensure_ascii=False) + "\n"


def tables_text() -> str:
    """The manual's tables in Markdown: one per section, with key, default and meaning."""
    return "\n\n".join(_section_text(model, paths) for model, paths in _sections().items())


def manual_text(current: str) -> str:
    """The manual with updated tables.

    Args:
        current: Text of the manual.

    Raises:
        InputError: the markers around the tables are missing.
    """
    before, begin, rest = current.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise InputError(
            f"{MANUAL}: expected the lines {BEGIN!r} and {END!r}, in this order; put them back "
            "around the tables"
        )
    return f"{before}{BEGIN}\n\n{tables_text()}\n\n{END}{after}"


def _sections() -> dict[type[BaseModel], list[str]]:
    """Every section's model and its key paths; its subsections follow it."""
    found: dict[type[BaseModel], list[str]] = {}

    def add(model: type[BaseModel], path: str) -> None:
        found.setdefault(model, []).append(path)
        for name, field in model.model_fields.items():
            if section := section_of(field):
                named = f"{name}.<name>" if typing.get_origin(field.annotation) is dict else name
                add(section, f"{path}.{named}" if path else named)

    add(Config, "")
    return found


def _section_text(model: type[BaseModel], paths: list[str]) -> str:
    title = "Top level" if paths == [""] else ", ".join(f"`{path}`" for path in paths)
    rows = [
        f"| `{name}` | {_default(field)} | {_meaning(field)} |"
        for name, field in model.model_fields.items()
    ]
    return "\n".join(
        [f"### {title}", "", _summary(model), "", "| key | default | meaning |", "|---|---|---|"]
        + rows
    )


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "**required**"
    if field.default is None:
        return "none"
    if isinstance(field.default, BaseModel):
        return "below"
    # JSON turns tuples into lists and sections into mappings.
    plain = json.loads(json.dumps(field.default, default=BaseModel.model_dump))
    text = yaml.safe_dump(plain, sort_keys=False, default_flow_style=True, width=1000)
    return f"`{text.removesuffix(chr(10)).removesuffix('...').strip()}`"


def _meaning(field: FieldInfo) -> str:
    section = section_of(field)
    says = field.description or (_summary(section) if section else "")
    limits = [*_choices(field.annotation), *_limits(field)]
    return says + (f" ({', '.join(limits)})" if limits else "")


def _choices(annotation: Any) -> Iterator[str]:
    """The fixed choice of a key's values or names, if it has one."""
    if typing.get_origin(annotation) is Literal:
        yield " or ".join(f"`{choice}`" for choice in typing.get_args(annotation))
    elif typing.get_origin(annotation) is dict:
        names, _ = typing.get_args(annotation)
        yield from _choices(names)


def _limits(field: FieldInfo) -> Iterator[str]:
    for limit in field.metadata:
        for name, sign in _LIMITS.items():
            if hasattr(limit, name):
                yield f"{sign} {getattr(limit, name)}"


def _summary(model: type[BaseModel]) -> str:
    return (inspect.getdoc(model) or "").partition("\n")[0]


def main(arguments: Sequence[str] | None = None) -> int:
    """Write or check the files; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m stdiff.config.docs", description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 if out of date")
    check = parser.parse_args(arguments).check
    manual = (ROOT / MANUAL).read_text(encoding="utf-8")
    out_of_date = False
    for path, text in ((SCHEMA, schema_text()), (MANUAL, manual_text(manual))):
        file = ROOT / path
        if file.exists() and file.read_text(encoding="utf-8") == text:
            continue
        out_of_date = True
        if check:
            print(f"{path} is out of date; write it with `python -m stdiff.config.docs`")
        else:
            write_text(file, text)
            print(f"{path} written")
    return 1 if check and out_of_date else 0


if __name__ == "__main__":
    sys.exit(main())
