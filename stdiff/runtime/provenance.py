"""Digests of code and raw data, so that an edit reruns the steps it affects."""

from __future__ import annotations

import ast
import hashlib
import os
import re
import stat
from collections.abc import Iterator
from functools import cache
from importlib.machinery import PathFinder
from pathlib import Path

from stdiff.runtime.files import is_clutter

_PACKAGE = Path(__file__).parents[1]
# Configuration values reach every rule as `params`; the code that reads them changes no result.
_LEFT_OUT = {f"stdiff.config.{file.stem}" for file in _PACKAGE.glob("config/*.py")}

# Import statements of this package, anywhere in a file, in the layout of ruff.
_IMPORT = re.compile(
    r"^ *(?:from|import) (?P<module>stdiff[\w.]*)(?: import (?P<names>\([^)]*\)|[^\n]*))?", re.M
)


def code_of(*entries: str) -> str:
    """Digest of the statements of the named modules and of all package modules they import.

    Comments, docstrings and layout do not change it; another Python version may.
    """
    digest = hashlib.sha256()
    for module in modules_of(*entries):
        digest.update(f"{module} {_meaning(module)}\n".encode())
    return digest.hexdigest()[:16]


def modules_of(*entries: str) -> list[str]:
    """The named modules and all package modules they import, sorted.

    Found by reading the import statements; nothing is imported.
    """
    found: set[str] = set()
    waiting = list(entries)
    while waiting:
        module = waiting.pop()
        if module in found or module in _LEFT_OUT:
            continue
        found.add(module)
        waiting += _imports(module)
    return sorted(found)


def source_of(network: str) -> list[str]:
    """The source file of a user's network ``module:factory``; empty for any other network.

    Nothing is imported. A module that is not found gives no file; training reports it.
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


def listing_of(*places: Path) -> str:
    """Digest of names, sizes and modification times of files and of all files below folders.

    Links are followed. Clutter is passed over, as readers do. Snakemake itself notices only that
    a folder's files were added or removed, not that one was replaced.
    """
    digest = hashlib.sha256()
    for place in map(Path, places):
        for path, found in _files_below(place):
            state = f"{found.st_size}\0{found.st_mtime_ns}" if found else "cannot be read"
            digest.update(os.fsencode(f"{path.relative_to(place.parent)}\0{state}\n"))
    return digest.hexdigest()


def _files_below(
    path: Path, above: frozenset[tuple[int, int]] = frozenset()
) -> Iterator[tuple[Path, os.stat_result | None]]:
    """A file, or all below a folder; without a state where it cannot be read.

    Args:
        path: of the file or folder.
        above: device and inode of the folders that lead to it; a link back to one is not entered.
    """
    try:
        found = path.stat()
        inside = sorted(path.iterdir()) if stat.S_ISDIR(found.st_mode) else None
    except OSError:
        yield path, None
        return
    if inside is None:
        yield path, found
        return
    this = (found.st_dev, found.st_ino)
    for child in [] if this in above else inside:
        if not is_clutter(child):
            yield from _files_below(child, above | {this})


@cache
def _imports(module: str) -> list[str]:
    """Package modules that a module imports directly."""
    names: list[str] = []
    for found in _IMPORT.finditer(_file(module).read_text(encoding="utf-8")):
        names += [found["module"]]
        names += [f"{found['module']}.{name}" for name in re.findall(r"\w+", found["names"] or "")]
    return [name for name in dict.fromkeys(names) if _file(name).is_file()]


@cache
def _meaning(module: str) -> str:
    """Digest of a module's syntax tree without docstrings."""
    tree = ast.parse(_file(module).read_text(encoding="utf-8"))
    _drop_docstrings(tree)
    return hashlib.sha256(ast.dump(tree).encode()).hexdigest()


def _drop_docstrings(node: ast.AST) -> None:
    for block in ("body", "orelse", "finalbody", "handlers"):
        for statement in getattr(node, block, []):
            _drop_docstrings(statement)
    if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(
        node, clean=False
    ):
        node.body = node.body[1:]
