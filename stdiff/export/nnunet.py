"""An nnU-Net v2 raw dataset: ``Dataset501_Name/`` with imagesTr, labelsTr and dataset.json.

https://github.com/MIC-DKFZ/nnUNet/blob/master/documentation/dataset_format.md
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from stdiff.export.label_images import write_pair
from stdiff.export.notice import Notice
from stdiff.export.selection import Choice
from stdiff.runtime.files import write_text

_NAME = re.compile(r"Dataset\d{3}_[A-Za-z0-9_-]+")


def name_problems(to: Path) -> list[str]:
    """Why nnU-Net would not take this folder for a dataset."""
    if _NAME.fullmatch(to.name):
        return []
    return [
        f"{to}: nnU-Net finds datasets by folders named DatasetNNN_Name, got {to.name!r}; "
        "e.g. --to nnUNet_raw/Dataset501_BreastUltrasound"
    ]


def write(choice: Choice, folder: Path) -> None:
    """Write training cases, and test cases (imagesTs, labelsTs) where splits name any.

    Validation cases are among nnU-Net's training cases; ``splits_final.json``, which nnU-Net
    takes over when it plans, makes them the validation cases of its fold 0. Without it nnU-Net
    draws folds that cut patients.
    """
    folders = ["imagesTr", "labelsTr"] + (["imagesTs", "labelsTs"] if choice.splits else [])
    for name in folders:
        (folder / name).mkdir()
    notice, training = Notice(choice.left_out), {"train": [], "val": []}
    number = 0
    for case in choice.cases():
        part = "Ts" if case.role == "test" else "Tr"
        write_pair(
            case,
            folder / f"images{part}" / f"{case.stem}_0000.png",
            folder / f"labels{part}" / f"{case.stem}.png",
        )
        notice.count(case.row["collection"], case.synthetic)
        number += part == "Tr"
        if choice.splits and part == "Tr":
            training["val" if case.role == "validation" else "train"].append(case.stem)
    if training["val"]:
        _write_json(folder / "splits_final.json", [training])
    _write_json(
        folder / "dataset.json",
        about_dataset(number)
        | {"description": notice.what(), "licence": " ".join(notice.licences())},
    )


def about_dataset(training: int) -> dict[str, Any]:
    """The content of ``dataset.json`` for this number of training cases."""
    return {
        # An unknown channel is normalised to mean 0 and SD 1 image by image, as it should be.
        "channel_names": {"0": "ultrasound"},
        "labels": {"background": 0, "lesion": 1},
        "numTraining": training,
        "file_ending": ".png",
    }


def _write_json(path: Path, value: Any) -> None:
    write_text(path, json.dumps(value, indent=1, ensure_ascii=False) + "\n")
