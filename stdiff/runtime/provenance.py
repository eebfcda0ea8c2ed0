"""Digests of code and raw data, so that an edit reruns the steps it affects."""

from __future__ import annotations

import ast
import hashlib
import re
from functools import cache
from importlib.machinery import PathFinder
from pathlib import Path

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


def listing_of(folder: Path) -> str:
    """Digest of names, sizes and modification times of all files below a folder.

    Snakemake notices only that a folder's files were added or removed, not that one was replaced.
    """
    digest = hashlib.sha256()
    for path in sorted(p for p in Path(folder).rglob("*") if p.is_file()):
        stat = path.stat()
        digest.update(f"{path.relative_to(folder)}\0{stat.st_size}\0{stat.st_mtime_ns}\n".encode())
    return digest.hexdigest()


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
