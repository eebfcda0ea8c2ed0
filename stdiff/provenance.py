"""What a step depends on besides its tables, so that an edit re-runs what it must."""

from __future__ import annotations

import ast
import hashlib
from functools import cache
from importlib.machinery import PathFinder
from pathlib import Path

_PACKAGE = Path(__file__).parent
# Its values reach every rule as params, one section each; its text changes no result.
_LEFT_OUT = {f"stdiff.{file.stem}" for file in _PACKAGE.glob("config*.py")}


def modules_of(*entries: str) -> list[str]:
    """Files of the named modules and of all package modules they import, sorted.

    Paths are relative to the folder that holds the package, as rules name their inputs. Found by
    reading the import statements: nothing is imported.
    """
    found: set[str] = set()
    waiting = list(entries)
    while waiting:
        module = waiting.pop()
        if module in found or module in _LEFT_OUT:
            continue
        found.add(module)
        waiting += _imports(module)
    return sorted(str(_file(m).relative_to(_PACKAGE.parent)) for m in found)


def source_of(network: str) -> list[str]:
    """The file of a network of the user's own, ``module:factory``; none of any other network.

    Nothing is imported. A module that is not found is no input either: training will say so.
    """
    module, own, _ = network.partition(":")
    spec, folders = None, None
    for name in module.split(".") if own else ():
        spec = PathFinder.find_spec(name, folders)
        if spec is None:
            return []
        folders = spec.submodule_search_locations
    return [spec.origin] if spec and spec.origin and spec.origin.endswith(".py") else []


def _file(module: str) -> Path:
    path = _PACKAGE.parent.joinpath(*module.split("."))
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


def listing_of(folder: Path) -> str:
    """Digest of the names, sizes and times of all files below a folder; none of them is read.

    Snakemake sees of a folder only that files came or went, not that one was replaced.
    """
    digest = hashlib.sha256()
    for path in sorted(p for p in Path(folder).rglob("*") if p.is_file()):
        stat = path.stat()
        digest.update(f"{path.relative_to(folder)}\0{stat.st_size}\0{stat.st_mtime_ns}\n".encode())
    return digest.hexdigest()


@cache
def _imports(module: str) -> list[str]:
    """Package modules that a module imports itself."""
    names: list[str] = []
    for node in ast.walk(ast.parse(_file(module).read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            names += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    ours = [name for name in names if name.split(".")[0] == "stdiff"]
    return [name for name in ours if _file(name).is_file()]
