"""Pages: one folder with ``index.html`` and its figures, self-contained and replaceable."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from stdiff.runtime.files import InputError

PAGE = "index.html"
FIGURES = "figures"


def render_page(template: str, contents: dict[str, Any]) -> str:
    """The page's HTML; everything put in is escaped."""
    environment = Environment(
        loader=PackageLoader("stdiff", "report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(template).render(contents)


def refuse_other_folder(out: Path) -> None:
    """An existing folder is replaced, so it must be an earlier page.

    Raises:
        InputError: it holds other things.
    """
    others = {path.name for path in out.iterdir()} - {PAGE, FIGURES} if out.is_dir() else set()
    if others or out.is_file():
        raise InputError(
            f"{out}: holds {', '.join(sorted(others)[:3]) or 'a file'}, which is no earlier report "
            "and would be deleted; name a folder that does not exist"
        )
