"""A MONAI datalist: images, labels and the JSON that ``load_decathlon_datalist`` reads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from stdiff.export.json_lists import JsonLists
from stdiff.export.label_images import write_pair
from stdiff.export.notice import Notice
from stdiff.export.selection import Case, Choice
from stdiff.runtime.files import write_text

_SECTION_OF = {"train": "training", "validation": "validation", "test": "testing"}
# MONAI takes an empty text for a path, and stacks no nulls.
_UNKNOWN = "unknown"

_FILES = """\
images/        8-bit grey PNG
labels/        lesion masks of the same names: 0 background, 1 lesion
datalist.json  paths and findings of each case"""


def write(choice: Choice, folder: Path) -> None:
    """Write ``images/``, ``labels/``, ``datalist.json`` and ``README.txt``.

    The datalist has the list ``training``; with splits also ``validation`` and ``testing``.
    """
    for name in ("images", "labels"):
        (folder / name).mkdir()
    notice = Notice(choice.left_out)
    sections = list(_SECTION_OF.values()) if choice.splits else ["training"]
    with JsonLists(folder / "datalist.json", sections) as lists:
        for case in choice.cases():
            entry = _entry(case, with_verdict=choice.rejected_too)
            write_pair(case, folder / entry["image"], folder / entry["label"])
            notice.count(case.row["collection"], case.synthetic)
            lists.add(_SECTION_OF[case.role], entry)
        lists.head = {
            "description": notice.what(),
            "licence": " ".join(notice.licences()),
            "labels": {"0": "background", "1": "lesion"},
            "numTraining": lists.counts["training"],
        }
    write_text(folder / "README.txt", notice.text(_FILES) + "\n")


def _entry(case: Case, *, with_verdict: bool) -> dict[str, Any]:
    entry: dict[str, Any] = {
        "image": f"images/{case.stem}.png",
        "label": f"labels/{case.stem}.png",
        "synthetic": case.synthetic,
    }
    if with_verdict:
        # An image that was not filtered is not rejected.
        entry["accepted"] = case.accepted is not False
    for name in ("case_id", "collection", "pathology", "birads", "caption"):
        entry[name] = case.row[name] or _UNKNOWN
    return entry
