"""Would the tests notice? Change the code in one place, run the tests that should fail, restore it.

``bench/mutations.toml`` lists the changes: by file, the tests that should notice, and pairs of old
and new text (a third item names other tests). Each is made in a temporary copy of the project:

    python bench/mutations.py                     all of them; hours on two busy cores
    python bench/mutations.py --only splitting    those whose file contains this text

Results are kept in ``results/mutations.jsonl``: a second call runs only what is new, or whose file
or tests have changed. Exit code 1 if fewer than 95 % are noticed, if the text of a change occurs in
its file no more, or if tests fail without any change.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import importlib
import json
import multiprocessing
import os
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LIST, RESULTS = ROOT / "bench" / "mutations.toml", ROOT / "results" / "mutations.jsonl"
WANTED, TIMEOUT_S = 0.95, 900
# pytest's exit codes.
PASSED, FAILED = 0, 1
FAILS = "fails"


@dataclass(frozen=True)
class Mutation:
    """One change of a file, and the tests that should notice it."""

    file: str
    old: str
    new: str
    tests: tuple[str, ...]


def key_of(text: str, *names: str) -> str:
    """Changes with the text, and with names and content of files, or of the files of tests."""
    digest = hashlib.sha256(text.encode())
    for name in names:
        file = ROOT / name.partition("::")[0]
        digest.update(name.encode() + (file.read_bytes() if file.is_file() else b""))
    return digest.hexdigest()[:16]


def mutations(only: str = "") -> Iterator[Mutation]:
    """The changes of the list whose file contains this text."""
    for file, listed in tomllib.loads(LIST.read_text(encoding="utf-8")).items():
        for old, new, *tests in listed["changes"]:
            if only in file:
                yield Mutation(file, old, new, tuple(tests or listed["tests"]))


def tried(copy: Path, one: Mutation) -> str:
    """What its tests say of a change: "noticed", "missed", or an error."""
    path = copy / one.file
    text = path.read_text(encoding="utf-8")
    if one.old not in text:
        return "error: its text does not occur in the file"
    path.write_text(text.replace(one.old, one.new, 1), encoding="utf-8")
    try:
        code = tested(copy, one.tests)
    finally:
        path.write_text(text, encoding="utf-8")
    if code in (PASSED, FAILED):
        return "missed" if code == PASSED else "noticed"
    return f"error: pytest ended with {code}: {(copy / 'said').read_text()[-400:]}"


def unchanged_test(copy: Path, test: str) -> str:
    """Whether a test passes without any change."""
    return "passes" if tested(copy, [test]) == PASSED else FAILS


def tested(copy: Path, tests: Sequence[str]) -> int | None:
    """Exit code of pytest, run in a fork; that of a killed process after ``TIMEOUT_S``."""
    process = multiprocessing.get_context("fork").Process(target=_test, args=(copy, tests))
    try:
        process.start()
        process.join(TIMEOUT_S)
    finally:
        process.kill()
        process.join()
    return process.exitcode


def _test(copy: Path, tests: Sequence[str]) -> None:
    """Run tests of the copy in this process, which has the libraries but not the project."""
    os.chdir(copy)
    said = os.open("said", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(said, 1)
    os.dup2(said, 2)
    sys.dont_write_bytecode = True
    sys.path[:0] = [str(copy), str(copy / "tests")]
    os.environ["PYTHONPATH"] = str(copy)
    # Not sys.exit: what forked processes do at their end is not ours to wait for.
    os._exit(pytest.main(["-q", "-x", "-p", "no:cacheprovider", *tests]))


def load_libraries() -> None:
    """Import what the project imports, then forget the project: it differs from copy to copy."""
    sys.path.insert(0, str(ROOT))
    for file in sorted((ROOT / "stdiff").glob("*/*.py")):
        with contextlib.suppress(ImportError):  # what is needed only where it is installed
            importlib.import_module(f"stdiff.{file.parent.name}.{file.stem}")
    for name in [name for name in sys.modules if name.partition(".")[0] == "stdiff"]:
        del sys.modules[name]
    sys.path.remove(str(ROOT))


def copied(folder: Path) -> Path:
    """A copy of the project's own files."""
    listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(listed, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in filter(None, names.split("\0")):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    return folder


def known_results() -> dict[str, str]:
    """Results of earlier calls by :func:`key_of`."""
    lines = RESULTS.read_text(encoding="utf-8").splitlines() if RESULTS.is_file() else []
    return {entry["key"]: entry["result"] for entry in map(json.loads, lines)}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--only", default="", help="changes of files whose name contains this")
    wanted = list(mutations(parser.parse_args().only))
    known = known_results()
    RESULTS.parent.mkdir(exist_ok=True)
    load_libraries()
    with tempfile.TemporaryDirectory() as folder, RESULTS.open("a", encoding="utf-8") as log:
        copy = copied(Path(folder))

        def once(key: str, result: Callable[[], str]) -> str:
            """A result that is known, or is made and kept."""
            if key not in known:
                known[key] = result()
                log.write(json.dumps({"key": key, "result": known[key]}) + "\n")
                log.flush()
            return known[key]

        table: dict[str, list[str]] = {}
        for one in wanted:
            key = key_of(f"{one.old}\0{one.new}", one.file, *one.tests)
            result = once(key, partial(tried, copy, one))
            unchanged = [once(key_of("", t), partial(unchanged_test, copy, t)) for t in one.tests]
            if FAILS in unchanged:
                result = f"error: {one.tests[unchanged.index(FAILS)]} fails without any change"
            table.setdefault(one.file, []).append(result)
            if result != "noticed":
                print(f"{result}: {one.file}: {one.old!r} -> {one.new!r}", flush=True)
    print("\n| file | changes | noticed |\n|---|---|---|")
    for file, results in table.items():
        print(f"| `{file}` | {len(results)} | {results.count('noticed')} |")
    every = [result for results in table.values() for result in results]
    noticed = every.count("noticed")
    print(f"| all | {len(every)} | {noticed} ({noticed / max(1, len(every)):.0%}) |")
    broken = any(result.startswith("error") for result in every)
    return int(broken or noticed < WANTED * len(every))


if __name__ == "__main__":
    sys.exit(main())
