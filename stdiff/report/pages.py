"""Pages: self-contained folders of ``index.html`` and its figures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from stdiff.runtime.files import InputError

PAGE = "index.html"
FIGURES = "figures"


def render_page(template: str, contents: dict[str, Any]) -> str:
    """The page's HTML; all values are escaped."""
    environment = Environment(
        loader=PackageLoader("stdiff", "report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(template).render(contents)


def refuse_other_folder(out: Path) -> None:
    """Check that an existing folder, which will be replaced, is an earlier page.

    Raises:
        InputError: it contains other files.
    """
    others = {path.name for path in out.iterdir()} - {PAGE, FIGURES} if out.is_dir() else set()
    if others or out.is_file():
        raise InputError(
            f"{out}: contains {', '.join(sorted(others)[:3]) or 'a file'}, not an earlier report, "
            "and would be replaced; choose a folder that does not exist"
        )
