"""BUSI: 780 images in three folders by class; no patients, no BI-RADS, no metadata file.

Al-Dhabyani et al. 2020, doi 10.1016/j.dib.2019.104863. Layout:
``Dataset_BUSI_with_GT/{benign,malignant,normal}/benign (1).png`` with ``benign (1)_mask.png``
and, for further lesions, ``_mask_1.png``, ``_mask_2.png``.
"""

from __future__ import annotations

import re
from itertools import chain
from pathlib import Path

from stdiff.birads.lexicon import Findings
from stdiff.datasets.raw import (
    Problem,
    RawCase,
    Reading,
    collection_root,
    files_in,
    problems_of,
    refuse_repeats,
    relative,
    warn,
)
from stdiff.runtime.names import file_key

COLLECTION = "busi"
FOLDER = "Dataset_BUSI_with_GT"
*_REQUIRED, _OPTIONAL = CLASSES = ("benign", "malignant", "normal")
_NAME = re.compile(r"(?P<pathology>[a-z]+) \((?P<number>\d+)\)(?P<mask>_mask(_\d+)?)?\.png")


def read(raw: Path) -> Reading:
    """Cases such as ``busi/benign-0001``, and the files that belong to no case.

    Without ``normal/``, which some copies lack, there is a warning.

    Raises:
        InputError: missing or otherwise laid out folder, one number twice.
    """
    root = collection_root(raw, FOLDER, _REQUIRED)
    if not (root / _OPTIONAL).is_dir():
        warn(f"{root}: no folder {_OPTIONAL}/, so BUSI gives no image without a lesion")
    cases: list[RawCase] = []
    problems: list[Problem] = []
    for pathology in [folder.name for folder in places(raw)]:
        images: list[tuple[int, Path]] = []
        masks: dict[int, list[Path]] = {}
        for path in files_in(root / pathology):
            name = _NAME.fullmatch(file_key(path.name))
            if not name or name["pathology"] != pathology:
                reason = f"name not understood; expected e.g. '{pathology} (1).png'"
                problems.append(Problem(relative(path, root), reason))
            elif name["mask"]:
                masks.setdefault(int(name["number"]), []).append(path)
            else:
                images.append((int(name["number"]), path))
        refuse_repeats((f"{n:04d}" for n, _ in images), f"{root / pathology}: image number")
        for number, path in images:
            lesion_free = pathology == "normal"
            mask_paths = tuple(masks.pop(number, ()))
            if not mask_paths and not lesion_free:
                problems.append(Problem(relative(path, root), "no mask file beside the image"))
                continue
            cases.append(
                RawCase(
                    case_id=f"{COLLECTION}/{pathology}-{number:04d}",
                    root=root,
                    image_path=path,
                    mask_paths=mask_paths,
                    lesion_free=lesion_free,
                    findings=Findings(pathology=pathology),
                )
            )
        unused = chain.from_iterable(masks.values())
        problems += problems_of(unused, root, "mask without its image")
    return cases, problems


def places(raw: Path) -> list[Path]:
    """The folders that :func:`read` reads."""
    root = collection_root(raw, FOLDER, _REQUIRED)
    return [folder for name in CLASSES if (folder := root / name).is_dir()]
