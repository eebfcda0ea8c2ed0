"""Reading a YAML file strictly: each key once, and nothing that fills memory."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from stdiff.runtime.errors import InputError

_MAX_BYTES = 1_000_000
_MAX_DEPTH = 32
_MAX_VALUES = 20_000  # with aliases written out
_MERGE = "tag:yaml.org,2002:merge"


class ConfigError(InputError):
    """Invalid configuration; the message names key and value and shows the YAML to write."""


@dataclass(frozen=True)
class YamlFile:
    """What a file says, and where.

    Attributes:
        lines: key path → line, from 1.
    """

    path: Path
    values: dict[str, Any]
    lines: dict[tuple[str, ...], int]


def read_yaml(path: Path) -> YamlFile:
    """Read a configuration file.

    Raises:
        ConfigError: in one line with file and line: missing, not YAML, not ``key: value`` lines, a
            key twice, or nested or repeated (by aliases) beyond any use.
    """
    path = Path(path)
    if not path.is_file():
        raise ConfigError(f"{path}: no such configuration file")
    if path.stat().st_size > _MAX_BYTES:
        raise ConfigError(f"{path}: {path.stat().st_size:,} bytes are no configuration")
    try:
        loader = yaml.SafeLoader(path.read_text(encoding="utf-8"))
        root = loader.get_single_node()
        lines = dict(_keys(root, path))
        values = None if root is None else loader.construct_document(root)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"{path}, line {mark.line + 1}" if mark else str(path)
        raise ConfigError(f"{where}: invalid YAML ({error.problem or error.context})") from error
    except RecursionError:
        raise ConfigError(f"{path}: invalid YAML (nested too deeply)") from None
    except (yaml.YAMLError, ValueError, OverflowError) as error:
        reason = " ".join(str(error).split())
        raise ConfigError(f"{path}: invalid YAML ({reason})") from error
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: expected `key: value` lines, found {type(values).__name__}")
    return YamlFile(path, with_text_keys(values), lines)


def with_text_keys(values: Any) -> Any:
    """The values with keys such as 1 or null as text."""
    if isinstance(values, dict):
        return {str(key): with_text_keys(value) for key, value in values.items()}
    return [with_text_keys(value) for value in values] if isinstance(values, list) else values


def _keys(root: yaml.Node | None, path: Path) -> Iterator[tuple[tuple[str, ...], int]]:
    """Every key path with its line."""
    waiting: list[tuple[tuple[str, ...], yaml.Node]] = [((), root)] if root else []
    seen = 0
    while waiting:
        key_path, node = waiting.pop()
        seen += 1
        line = f"{path}, line {node.start_mark.line + 1}"
        if len(key_path) > _MAX_DEPTH:
            raise ConfigError(f"{line}: invalid YAML (nested deeper than {_MAX_DEPTH} levels)")
        if seen > _MAX_VALUES:
            raise ConfigError(f"{line}: invalid YAML (more than {_MAX_VALUES:,} values)")
        if isinstance(node, yaml.SequenceNode):
            waiting += [((*key_path, str(i)), value) for i, value in enumerate(node.value)]
        elif isinstance(node, yaml.MappingNode):
            first: dict[str, int] = {}
            for key, value in node.value:
                number, name = key.start_mark.line + 1, str(key.value)
                if name in first:
                    raise ConfigError(
                        f"{path}, line {number}: key {name!r} is given twice, first in line "
                        f"{first[name]}; keep one of them"
                    )
                first[name] = number
                yield (*key_path, name), number
                waiting.append(((*key_path, name) if key.tag != _MERGE else key_path, value))
