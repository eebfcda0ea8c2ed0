"""The documentation as a reader uses it: its commands, links, files and Python examples exist."""

import contextlib
import functools
import importlib
import io
import os
import re
from pathlib import Path
from unittest import mock

import pytest
from documentation import PAGES, ROOT, SHELL, is_exempt, name, split_page

from stdiff.cli.main import main

_LINK = re.compile(r"\]\(([^)\s]+)\)")
_OPTION = re.compile(r"(?<!\S)--[a-z][a-z-]*")
_FILE = re.compile(r"\b(?:bench|config|envs|stdiff|tests|workflow)/[\w/-]+(?:\.\w+)+")
# Made by the reader of a page that names them.
_MADE = {"config/my_run.yaml", "envs/stdiff.sif"}


def commands_of(page: Path) -> list[str]:
    """Every `stdiff ...` of code blocks and of inline code."""
    prose, blocks = split_page(page.read_text())
    code = "\n".join(body for language, body, _ in blocks if language in SHELL)
    lines = [line.strip().removeprefix("$ ") for line in code.replace("\\\n", " ").splitlines()]
    spans = [" ".join(span.split()) for span in re.findall(r"`([^`]+)`", prose)]
    found = [line for line in [*lines, *spans] if re.match(r"stdiff [a-z]", line)]
    return [" ".join(re.split(r"\s[|>;&#]", line)[0].split()) for line in found]


def words_and_options(line: str) -> tuple[tuple[str, ...], set[str]]:
    """The command with a first bare word, which may be a command below it, and the options."""
    options = set(_OPTION.findall(line))
    words = re.sub(r"[\[\]…]|\.\.\.", " ", line).split()[1:]
    bare = [word for word in words[:2] if re.fullmatch(r"[a-z][a-z-]*", word)]
    return tuple(bare if bare == words[: len(bare)] else bare[:1]), options


@functools.cache
def help_of(words: tuple[str, ...]) -> tuple[bool, str]:
    """Whether there is this command, and its help (or what it says instead)."""
    said = io.StringIO()
    # So wide that no option is broken over two lines.
    with (
        mock.patch.dict(os.environ, {"COLUMNS": "400"}),
        contextlib.redirect_stdout(said),
        contextlib.redirect_stderr(said),
    ):
        try:
            code = main([*words, "--help"])
        except SystemExit as stop:
            code = stop.code
    return not code, re.sub(r"\x1b\[[\d;]*m", "", said.getvalue())


def mistakes_of(line: str) -> list[str]:
    words, options = words_and_options(line)
    there, text = help_of(words)
    if not there:
        return [f"{line}: no command `stdiff {' '.join(words)}`"]
    known = set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", text))
    return [f"{line}: `stdiff {' '.join(words)}` has no {o}" for o in sorted(options - known)]


def anchors_of(page: Path) -> set[str]:
    """Anchors of the headings, as GitHub makes them."""
    prose, _ = split_page(page.read_text())
    headings = re.findall(r"^#+ (.+)$", prose, re.M)
    return {re.sub(r"[^\w\- ]", "", h.lower()).replace(" ", "-") for h in headings}


@pytest.mark.parametrize("page", [p for p in PAGES if not is_exempt(p)], ids=name)
def test_every_command_and_option_exists(page):
    mistakes = [m for line in commands_of(page) for m in mistakes_of(line)]
    assert not mistakes, "\n".join(mistakes)


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_every_link_leads_somewhere(page):
    prose, _ = split_page(page.read_text())
    broken = []
    for link in _LINK.findall(re.sub(r"`[^`]+`", "", prose)):
        address, _, anchor = link.partition("#")
        target = (page.parent / address).resolve() if address else page
        if re.match(r"https?://|mailto:", link):
            continue
        if not target.exists():
            broken.append(f"{link}: no such file")
        elif anchor and anchor not in anchors_of(target):
            broken.append(f"{link}: no such heading")
    assert not broken, "\n".join(broken)


@pytest.mark.parametrize("page", [p for p in PAGES if not is_exempt(p)], ids=name)
def test_every_file_of_the_repository_that_is_named_exists(page):
    named = set(_FILE.findall(re.sub(r"(?:results|https?:/)/\S+", "", page.read_text()))) - _MADE
    missing = sorted(file for file in named if not (ROOT / file).exists())
    assert not missing, f"{name(page)} names {', '.join(missing)}"


def test_names_in_the_guide_for_contributors_are_those_of_the_code():
    code = " ".join(file.read_text() for file in sorted((ROOT / "stdiff").rglob("*.py")))
    words = {*re.findall(r"\w+", code), *re.findall(r"\w+", (ROOT / "Makefile").read_text())}
    words |= set(re.findall(r"\w+", (ROOT / "tests/workflow/test_workflow.py").read_text()))
    prose, _ = split_page((ROOT / "CONTRIBUTING.md").read_text())
    named = set(re.findall(r"`([A-Za-z_]\w+)(?:\(\w*\))?`", prose))
    assert not named - words


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_python_examples_compile_and_import_what_there_is(page):
    _, blocks = split_page(page.read_text())
    for body in (body for language, body, _ in blocks if language == "python"):
        compile(body, name(page), "exec")
        for module, names in re.findall(r"^from (stdiff[\w.]*) import ([\w, ]+)$", body, re.M):
            for wanted in names.split(", "):
                assert hasattr(importlib.import_module(module), wanted), f"{module}.{wanted}"


def test_the_map_shows_every_room():
    picture = (ROOT / "docs" / "pictures" / "map.svg").read_text()
    rooms = {path.parent.name for path in (ROOT / "stdiff").glob("*/__init__.py")}
    assert rooms <= set(re.findall(r">(\w+)</text>", picture))


def test_the_readme_is_one_screen_or_two():
    assert len((ROOT / "README.md").read_text().splitlines()) < 120


def test_no_line_of_the_results_is_without_its_page():
    pages = {page.name for page in (ROOT / "docs" / "results").glob("*.md")}
    linked = re.findall(r"\]\(results/([\w.]+)\)", (ROOT / "docs" / "results.md").read_text())
    assert pages == set(linked)


@pytest.mark.parametrize(
    ("line", "mistake"),
    [
        ("stdiff export TABLE... --as folders|nnunet --to FOLDER", None),
        ("stdiff corpus show corpus/*.parquet --out sheet.png", None),
        ("stdiff harmonise busi raw --out busi.parquet", "no command"),
        ("stdiff corpus shwo corpus/*.parquet", "no command"),
        ("stdiff split busi.parquet --out splits.parquet --sede 1", "has no --sede"),
    ],
)
def test_mistakes_are_found(line, mistake):
    found = mistakes_of(line)
    assert (mistake in found[0]) if mistake else not found


def test_commands_are_read_from_blocks_and_inline_code(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(
        "Run `stdiff gain\nT`, not `stdiff[nnunet]`.\n\n    stdiff split a --out b  # --c\n\n"
        "```\n$ stdiff audit run \\\n    --out a.json | less --d\n```\n```yaml\nstdiff x\n```\n"
    )
    expected = ["stdiff split a --out b", "stdiff audit run --out a.json", "stdiff gain T"]
    assert commands_of(page) == expected


def test_a_block_is_not_run_only_where_the_line_before_says_why():
    block = "```\nstdiff nothing\n```\n"
    for before, is_run in (("<!-- not run: a download -->", False), ("<!-- not run: -->", True)):
        assert split_page(f"{before}\n{block}")[1] == [("", "stdiff nothing", is_run)]
    assert split_page("\n    stdiff a \\\n        --b\n\nText.")[1] == [
        ("", "stdiff a \\\n    --b", True)
    ]
