"""A JSON object of long lists, written as their items come."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, TextIO


class JsonLists:
    """Lists of JSON values that need not fit into memory.

    Each list is written to a separate file; closing joins them into one object.
    """

    def __init__(self, out: Path, names: Sequence[str]) -> None:
        self.counts = dict.fromkeys(names, 0)
        # Keys of the object before the lists; may be set until it is closed.
        self.head: dict[str, Any] = {}
        self._out = out
        self._parts = {name: out.with_name(f".{out.name}.{name}") for name in names}
        self._files: dict[str, TextIO] = {}
        self._open = ExitStack()

    def __enter__(self) -> JsonLists:
        for name, path in self._parts.items():
            self._files[name] = self._open.enter_context(path.open("w+", encoding="utf-8"))
        return self

    def add(self, name: str, value: Any) -> None:
        """Append a value to one of the lists."""
        separator = ",\n  " if self.counts[name] else "\n  "
        self._files[name].write(separator + json.dumps(value, ensure_ascii=False))
        self.counts[name] += 1

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        with self._open:
            if kind is None:
                self._write()
        for path in self._parts.values():
            path.unlink()

    def _write(self) -> None:
        with self._out.open("w", encoding="utf-8") as out:
            separator = "{\n "
            for key, value in self.head.items():
                out.write(f"{separator}{json.dumps(key)}: {json.dumps(value, ensure_ascii=False)}")
                separator = ",\n "
            for name, part in self._files.items():
                out.write(f"{separator}{json.dumps(name)}: [")
                part.seek(0)
                shutil.copyfileobj(part, out)
                out.write("]")
                separator = ",\n "
            out.write("\n}\n")
