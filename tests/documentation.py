"""Pages of the documentation, their prose and their code blocks."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "config/README.md")),
    *sorted((ROOT / "docs").rglob("*.md")),
    *sorted((ROOT / "bench").rglob("*.md")),
]
# On the line before a block: the block is not run. On the first line of a page: a record, neither
# checked nor run.
_NOT_RUN = re.compile(r"\s*<!-- not run: .+ -->")
_FENCE = re.compile(r"\s*```")
SHELL = ("", "bash", "sh", "console")
# It names what is no more.
_HISTORY = {ROOT / "CHANGELOG.md"}


def is_exempt(page: Path) -> bool:
    return page in _HISTORY or bool(_NOT_RUN.match(page.read_text().partition("\n")[0]))


def split_page(text: str) -> tuple[str, list[tuple[str, str, bool]]]:
    """Prose, and the code blocks: language, text, and whether a test runs it."""
    prose, blocks, before = [], [], ""
    lines = iter(text.splitlines())
    for line in lines:
        if _FENCE.match(line):
            body = []
            for inner in lines:
                if _FENCE.match(inner):
                    break
                body.append(inner)
            blocks.append((line.strip().strip("`"), "\n".join(body), not _NOT_RUN.match(before)))
        elif line.startswith("    "):
            body = [line[4:]]
            for inner in lines:
                if not inner.startswith("    "):
                    break
                body.append(inner[4:])
            blocks.append(("", "\n".join(body), not _NOT_RUN.match(before)))
        else:
            prose.append(line)
        before = line or before
    return "\n".join(prose), blocks


def name(page: Path) -> str:
    """Path within the repository."""
    return str(page.relative_to(ROOT))
