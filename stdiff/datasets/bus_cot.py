"""BUS-CoT: 11,439 images gathered from eleven collections, BUSI and BUS-BRA among them.

Yu et al. 2026, doi 10.1038/s41597-026-06702-9. Two parts are read:

* ``BUS-Expert/000000/``: whole frames ``000000@raw.png`` and ``000000@cropped.png`` with one mask
  per lesion, ``000000@0.png`` (``000000@mask*.png`` in some copies). The publication does not say
  which frame the masks belong to: it is the one frame of the masks' size; if both or neither has
  it, the case is left out.
* ``BUS-Lesion/{trainval,test}/000000@0.png``: lesion crops without masks. The number before ``@``
  is that of the BUS-Expert frame, which gives the crop's patient and collection of origin. Some
  crops are named in the questions for language models only (``DatasetFiles/vlm_*.json``); they
  are read without findings and flagged ``named_in_vlm_only``.

The layout is known from public loaders only; every unexpected file is reported. Overlay pictures
(``*_VISBOXMASK.png``) add nothing and are skipped. Images of another modality than B-mode are
flagged.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

from stdiff.datasets.bus_cot_terms import findings_of, histology_of, modality_flags
from stdiff.datasets.cells import value_of
from stdiff.datasets.raw import (
    Problem,
    RawCase,
    Reading,
    cases_or_problems,
    collection_root,
    files_in,
    problems_of,
    refuse_repeats,
    relative,
)
from stdiff.runtime.files import InputError, sha256_file
from stdiff.runtime.images import image_size_px

COLLECTION = "bus_cot"
FOLDER = "BUSCoT"
_PARTS = ("BUS-Lesion", "BUS-Expert", "DatasetFiles")
_LESIONS = "DatasetFiles/lesion_dataset.json"
_EXPERT = "DatasetFiles/BUS-Expert_dataset.json"
_FOR_PEOPLE = "*_VISBOXMASK.png"
_FOR_LANGUAGE_MODELS = "vlm_*.json"
_VLM_ONLY = "named_in_vlm_only"
_CROP = re.compile(r"\w+@\d+\.png")
# What follows @ in a mask's name.
_MASK = r"(?:\d+|mask[\w.-]*)"


def read(raw: Path) -> Reading:
    """Cases ``bus_cot/expert-000000`` with masks and ``bus_cot/lesion-trainval_001755@0`` without.

    Raises:
        InputError: missing or otherwise laid out folder, JSON that is no object, a key twice.
    """
    root = _root(raw)
    expert, lesions = _entries(root / _EXPERT), _entries(root / _LESIONS)
    frames = [(f"BUS-Expert/{k}", partial(_expert_case, root, k, v)) for k, v in expert.items()]
    crops = [
        (f"BUS-Lesion/{key}", partial(_lesion_case, root, key, entry, expert))
        for key, entry in lesions.items()
    ]
    further = [
        (f"BUS-Lesion/{key}", partial(_lesion_case, root, key, {}, expert, (_VLM_ONLY,)))
        for key in _crops_of_questions(root)
        if key not in lesions
    ]
    cases, problems = cases_or_problems(frames + crops + further)
    return cases, problems + _unnamed(root, set(expert), {case.image_path for case in cases})


def places(raw: Path) -> list[Path]:
    """The folders that :func:`read` reads."""
    return [path for path in sorted(_root(raw).iterdir()) if path.name in _PARTS]


def _root(raw: Path) -> Path:
    return collection_root(raw, FOLDER, (*_PARTS[:2], _LESIONS, _EXPERT))


def _crops_of_questions(root: Path) -> list[str]:
    """Keys such as ``test_000000@0.png`` of the crops on disk that the questions name."""
    found = set()
    for path in (root / "DatasetFiles").glob(_FOR_LANGUAGE_MODELS):
        split = path.stem.rpartition("_")[2]
        named = {name for text in _texts(_json(path)) for name in _CROP.findall(text)}
        for name in {name.removeprefix(f"{split}_") for name in named}:
            if (root / "BUS-Lesion" / split / name).is_file():
                found.add(f"{split}_{name}")
    return sorted(found)


def _texts(node: Any) -> Iterator[str]:
    """Keys and texts of a JSON file at any depth."""
    if isinstance(node, str):
        yield node
    elif isinstance(node, dict):
        yield from node
        for value in node.values():
            yield from _texts(value)
    elif isinstance(node, list):
        for value in node:
            yield from _texts(value)


def _entries(path: Path) -> dict[str, dict[str, Any]]:
    found = _json(path)
    if not isinstance(found, dict):
        raise InputError(f"{path}: holds a {type(found).__name__}; expected an object by image")
    return found


def _json(path: Path) -> Any:
    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        refuse_repeats((key for key, _ in pairs), f"{path}: key")
        return dict(pairs)

    try:
        return json.loads(path.read_text(encoding="utf-8-sig"), object_pairs_hook=unique)
    except InputError:
        raise
    except ValueError as error:
        raise InputError(f"{path}: not a readable JSON file ({error})") from error


def _expert_case(root: Path, key: str, entry: Any) -> RawCase:
    folder = root / "BUS-Expert" / key
    if not re.fullmatch(r"\w+", key) or not isinstance(entry, dict):
        raise InputError(f"{_EXPERT}: entry {key!r} is not understood; expected e.g. '000000'")
    if not folder.is_dir():
        raise InputError(f"named in {_EXPERT}, but its folder is missing")
    is_mask = re.compile(rf"{re.escape(key)}@{_MASK}\.png").fullmatch
    masks = tuple(path for path in files_in(folder) if is_mask(path.name))
    if not masks:
        raise InputError(f"no mask such as {key}@0.png")
    return _case(
        root,
        case_id=f"{COLLECTION}/expert-{key}",
        image_path=_frame_of(folder, key, masks),
        mask_paths=masks,
        reports=_reports(entry.get("us_report")),
        entry=entry,
        frame=key,
    )


def _reports(us_report: Any) -> list[Any]:
    """Reports of a frame's lesions; published by lesion number, or as a single report."""
    if not isinstance(us_report, dict):
        return []
    by_lesion = [report for report in us_report.values() if isinstance(report, dict)]
    return by_lesion or [us_report]


def _frame_of(folder: Path, key: str, masks: tuple[Path, ...]) -> Path:
    """The one frame of the masks' size."""
    mask_sizes = {image_size_px(path) for path in masks}
    names = [f"{key}@{kind}.png" for kind in ("raw", "cropped")]
    sizes = {path: image_size_px(path) for path in files_in(folder) if path.name in names}
    fitting = [path for path, size in sizes.items() if mask_sizes == {size}]
    if len(fitting) == 2 and sha256_file(fitting[0]) == sha256_file(fitting[1]):
        return fitting[0]
    if len(fitting) != 1:
        found = ", ".join(f"{path.name} {size}" for path, size in sizes.items()) or "no frame"
        raise InputError(
            f"masks of size {sorted(mask_sizes)} fit {len(fitting)} of the frames ({found}); "
            "which one they lie on is not guessed"
        )
    return fitting[0]


def _lesion_case(
    root: Path, key: str, entry: Any, expert: dict[str, Any], flags: tuple[str, ...] = ()
) -> RawCase:
    name = re.fullmatch(r"(?P<split>\w+)_(?P<frame>\w+)@\d+\.png", key)
    if not name or not isinstance(entry, dict):
        raise InputError(f"{_LESIONS}: key not understood; expected e.g. 'trainval_001755@0.png'")
    # Only the file name is used: a path in a downloaded file must not lead out of the collection.
    stated = entry.get("image_path") or key.removeprefix(f"{name['split']}_")
    path = root / "BUS-Lesion" / name["split"] / PurePosixPath(str(stated)).name
    if not path.is_file():
        raise InputError(f"named in {_LESIONS}, but {relative(path, root)} is missing")
    of_frame = expert.get(name["frame"])
    stated = {field: value for field, value in entry.items() if value is not None}
    return _case(
        root,
        case_id=f"{COLLECTION}/lesion-{key.removesuffix('.png')}",
        image_path=path,
        mask_paths=(),
        reports=[entry.get("us_report")],
        entry=(of_frame if isinstance(of_frame, dict) else {}) | stated,
        frame=name["frame"],
        flags=flags,
    )


def _case(
    root: Path,
    *,
    case_id: str,
    image_path: Path,
    mask_paths: tuple[Path, ...],
    reports: list[Any],
    entry: dict[str, Any],
    frame: str,
    flags: tuple[str, ...] = (),
) -> RawCase:
    findings, unknown = findings_of(entry.get("pathology_histology"), reports)
    patient = value_of(entry.get("patient_id"))
    # 'BUSBRA@000177' also names the collection of origin.
    origin = entry.get("dataset") or (patient.split("@")[0] if "@" in patient else None)
    return RawCase(
        case_id=case_id,
        root=root,
        image_path=image_path,
        mask_paths=mask_paths,
        findings=findings,
        histology=histology_of(entry.get("pathology_histology")),
        patient_id=patient or None,
        group=f"{COLLECTION}/frame-{frame}",
        origin=str(origin) if origin else None,
        origin_known=bool(origin),
        lesion_crop=not mask_paths,
        flags=(*flags, *unknown, *modality_flags(entry)),
    )


def _unnamed(root: Path, expert: set[str], read_images: set[Path]) -> list[Problem]:
    """Files and folders that the JSON files do not name and the layout does not explain."""
    folders, others = [], files_in(root / "BUS-Expert")
    for path in sorted((root / "BUS-Expert").iterdir()):
        if not path.is_dir():
            continue
        if path.name not in expert:
            folders.append(path)
            continue
        is_expected = re.compile(rf"{re.escape(path.name)}@(raw|cropped|{_MASK})\.png").fullmatch
        others += [
            file
            for file in files_in(path)
            if not is_expected(file.name) and not file.match(_FOR_PEOPLE)
        ]
    crops = [
        path
        for split in sorted((root / "BUS-Lesion").iterdir())
        for path in (files_in(split) if split.is_dir() else [split])
        if path not in read_images
    ]
    texts = [
        path
        for path in files_in(root / "DatasetFiles")
        if path not in (root / _LESIONS, root / _EXPERT) and not path.match(_FOR_LANGUAGE_MODELS)
    ]
    return [
        *problems_of(folders + crops, root, "not named in DatasetFiles/"),
        *problems_of(others + texts, root, "not understood, and not read"),
    ]
