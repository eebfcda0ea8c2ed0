"""Write case tables in the layout of another tool; a failed export leaves nothing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from stdiff.export import folders, huggingface, monai, nnunet
from stdiff.export.selection import Choice, refuse_problems
from stdiff.runtime.files import atomic_write


@dataclass(frozen=True)
class Layout:
    """How cases lie on disk.

    Attributes:
        write: writes a choice of cases into an empty folder.
        needs: what every case must have.
        name_problems: why the user's name for the folder is not allowed.
    """

    write: Callable[[Choice, Path], None]
    needs: tuple[str, ...] = ()
    name_problems: Callable[[Path], list[str]] = lambda to: []


LAYOUTS = {
    "folders": Layout(folders.write),
    "nnunet": Layout(nnunet.write, ("image", "mask"), nnunet.name_problems),
    "monai": Layout(monai.write, ("image", "mask")),
    "huggingface": Layout(huggingface.write),
}


def export_cases(choice: Choice, to: Path, layout: str = "folders") -> None:
    """Write the chosen cases.

    Files are named by case_id; see :mod:`stdiff.export.file_names`.

    Args:
        choice: of cases.
        to: a folder that does not exist yet (or is empty).
        layout: one of :data:`LAYOUTS`.

    Raises:
        InputError: ``to`` holds something or has the wrong name, a table cannot be read, a case
            occurs twice, cases lack what the layout needs, or no case is left. One error lists
            all problems.
    """
    to, how = Path(to), LAYOUTS[layout]
    problems = how.name_problems(to)
    if to.exists() and not (to.is_dir() and not any(to.iterdir())):
        problems.append(f"{to}: already holds something; name a new folder or remove it first")
    refuse_problems(problems + choice.problems(how.needs, layout))
    with atomic_write(to) as temporary:
        temporary.mkdir()
        how.write(choice, temporary)
