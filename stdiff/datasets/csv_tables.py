"""CSV files of collections, in the forms in which spreadsheets and pandas write them."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import zip_longest
from pathlib import Path

from stdiff.datasets.cells import value_of
from stdiff.datasets.raw import (
    RawCase,
    Reading,
    cases_or_problems,
    files_in,
    problems_of,
    refuse_repeats,
)
from stdiff.runtime.files import InputError
from stdiff.runtime.names import composed, file_key

# Key of a CSV row's cells beyond those of the header.
EXTRA_CELLS = "cells beyond the header"
_DELIMITERS = ",;\t"
# What Excel writes before the header to say how cells are divided.
_DECLARED = re.compile(r'"?sep=(?P<delimiter>[^"])"?[,;\t]*\r?\n', re.IGNORECASE)
_WITHOUT_NAME = re.compile(r"|Unnamed: .*")


def read_rows(
    path: Path, columns: Sequence[str], key: str, *, optional: Sequence[str] = ()
) -> list[dict[str, str]]:
    """Rows of a CSV file with a header, cells as :func:`value_of` reads them, without blank rows.

    Cells are divided by comma, semicolon or tab, whichever a first line ``sep=`` says or the
    header holds most of. Columns are known in any case, with or without blanks. A nameless column
    of row numbers is passed over. Cells beyond the header are under :data:`EXTRA_CELLS`.

    Args:
        path: the file.
        columns: that it must have.
        key: the column whose cells must differ.
        optional: further columns that are known.

    Raises:
        InputError: no such file, not UTF-8, a column missing, or a repeated ``key``.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such file; it comes with the collection")
    try:
        text = path.read_text(encoding="utf-8-sig")
        if declared := _DECLARED.match(text):
            text, delimiter = text[declared.end() :], declared["delimiter"]
        else:
            header = text.lstrip().partition("\n")[0]
            delimiter = max(_DELIMITERS, key=header.count)
        lines = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
        cells = [[composed(cell).strip() for cell in line] for line in lines]
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(
            f"{path}: not a UTF-8 CSV file ({error}); save it as 'CSV UTF-8'"
        ) from error
    found, *lines = [line for line in cells if any(line)] or [[]]
    found = _named(found, lines, known_names(found, (*columns, *optional)))
    refuse_missing_columns([name for name in found if name], columns, str(path))
    rows = []
    for line in lines:
        cells_of = zip_longest(found, line[: len(found)], fillvalue="")
        row = {name: cell if name == key else value_of(cell, name) for name, cell in cells_of}
        row.pop("", None)
        if any(line[len(found) :]):
            row[EXTRA_CELLS] = delimiter.join(line[len(found) :])
        rows.append(row)
    refuse_repeats((row[key] for row in rows), f"{path}: column {key}")
    return rows


def known_names(found: Sequence[str], columns: Sequence[str]) -> list[str]:
    """A header with the columns' own spelling: 'Patient ID' is ``patient_id``."""
    spelling = {_plain(name): name for name in columns if name not in found}
    return [spelling.get(_plain(name), name) for name in found]


def _plain(name: str) -> str:
    return "".join(filter(str.isalnum, name.casefold()))


def _named(found: Sequence[str], lines: Sequence[Sequence[str]], names: Sequence[str]) -> list[str]:
    """The names; '' for nameless columns without cells or of row numbers, else their place."""
    result = []
    for place, (name, known) in enumerate(zip(found, names, strict=True)):
        if _WITHOUT_NAME.fullmatch(name):
            cells = [line[place] for line in lines if place < len(line) and line[place]]
            are_numbers = len(set(cells)) == len(cells) and all(map(str.isdecimal, cells))
            known = "" if are_numbers else f"without a name (number {place + 1}, e.g. {cells[0]!r})"
        result.append(known)
    return result


def read_paired(
    table: Path,
    columns: Sequence[str],
    folders: Sequence[Path],
    names_of: Callable[[str], tuple[str, str]],
    case_of: Callable[[dict[str, str], Path, Path | None, Path | None], RawCase],
) -> Reading:
    """Cases of a CSV file with one row per image, beside a folder of images and one of masks.

    Args:
        table: CSV file in the collection's folder.
        columns: columns that it must have, the first one its key.
        folders: the one with images and the one with masks, in the collection's folder.
        names_of: file names of image and mask, by the row's key.
        case_of: makes a case of row, collection's folder, image and mask (None if missing).

    Raises:
        InputError: as :func:`read_rows`.
    """
    root = table.parent
    images, masks = (_by_key(files_in(folder)) for folder in folders)
    named: set[Path | None] = set()
    attempts = []
    for row in read_rows(table, columns, key=columns[0]):
        image, mask = map(file_key, names_of(row[columns[0]]))
        paths = images.get(image), masks.get(mask)
        named.update(paths)
        attempts.append((f"{folders[0].name}/{image}", partial(case_of, row, root, *paths)))
    cases, problems = cases_or_problems(attempts)
    unnamed = [path for folder in folders for path in files_in(folder) if path not in named]
    return cases, problems + problems_of(unnamed, root, f"not named in {table.name}")


def _by_key(paths: Sequence[Path]) -> dict[str, Path]:
    """Files of one folder by their key; of two names that look equal, the one that is its key."""
    return {file_key(path.name): path for path in paths} | {
        path.name: path for path in paths if path.name == file_key(path.name)
    }


def refuse_extra_cells(row: Mapping[str, str], where: str) -> None:
    """Raise an ``InputError`` for a CSV row whose cells have moved out of their columns."""
    if EXTRA_CELLS in row:
        raise InputError(
            f"{where}: more cells than columns (last {row[EXTRA_CELLS]!r}); put quotation marks "
            "around a cell that holds the separator"
        )


def refuse_missing_columns(found: Sequence[str], columns: Sequence[str], where: str) -> None:
    """Raise one ``InputError`` with all missing and repeated columns."""
    missing = [column for column in columns if column not in found]
    if missing:
        raise InputError(
            f"{where}: column(s) {', '.join(missing)} missing; found {', '.join(found) or 'none'}"
        )
    refuse_repeats((column for column in found if column), f"{where}: header")
