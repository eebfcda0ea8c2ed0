"""Where a folder of the user's own keeps its images and masks, and which masks an image has."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from stdiff.datasets.raw import IMAGE_SUFFIXES, Problem, files_in, listed, relative
from stdiff.runtime.files import InputError, is_clutter

# Names of folders in small letters; the first is ours, the others are those of other tools.
IMAGES = ("images", "image", "imgs", "img", "original", "originals")
MASKS = (
    *("masks", "mask", "labels", "label", "annotations", "annotation", "gt"),
    *("ground_truth", "groundtruth", "segmentations", "segmentation"),
)
# 'x_mask', 'x-seg', 'x_GT' and, for further lesions, 'x_mask_1' are masks of image 'x'.
_MASK_STEM = re.compile(
    r"(?P<image>.+)[ _-](?P<word>mask|seg|segmentation|gt|label|annotation)([ _-]?\d+)?",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Part:
    """Folders that belong together; those that do not exist are left out.

    Attributes:
        images: folder of the images.
        masks: folders of their masks: none, or one and the folder ``0`` in it.
        texts: folder of captions, which may not exist.
        problems: folders beside them that are not read though they may hold masks.
    """

    images: Path
    masks: tuple[Path, ...]
    texts: Path
    problems: tuple[Problem, ...] = ()


def parts_of(root: Path) -> list[Part]:
    """The parts of ``images/`` with ``masks/``, or of ``labeled/`` and ``unlabeled/``.

    Raises:
        InputError: no such folder, neither layout, or several folders that may hold the masks.
    """
    if not root.is_dir():
        raise InputError(f"{root}: no such folder; give the one that holds images/ or labeled/")
    if _named(root, IMAGES):
        return [_part(root, root)]
    if _named(root / "labeled", IMAGES):
        tops = (root / "labeled", root / "unlabeled")
        return [_part(root, top) for top in tops if _named(top, IMAGES)]
    message = f"{root}: expected images/ (with masks/), or labeled/images/; found {listed(root)}"
    if _holds_images(root):
        message += "; move the images into images/ and their masks into masks/"
    raise InputError(message)


def holds_own_images(path: Path) -> bool:
    """Whether a folder is laid out as the user's own."""
    return bool(_named(path, IMAGES) or _named(path / "labeled", IMAGES))


def masks_of_images(
    images: Collection[str], masks: Mapping[str, Path]
) -> tuple[dict[str, list[Path]], list[Path]]:
    """The masks of each image, by stem, and the masks of none.

    A mask has its image's stem, or that and ``_mask``, ``_seg``, ``_gt`` or the like.
    """
    found: dict[str, list[Path]] = {}
    unpaired = []
    for stem, path in masks.items():
        name = _MASK_STEM.fullmatch(stem)
        of = stem if stem in images or not name else name["image"]
        if of in images:
            found.setdefault(of, []).append(path)
        else:
            unpaired.append(path)
    return found, unpaired


def masks_among(images: Collection[str]) -> list[str]:
    """Stems in a folder of images that are masks of other images there."""
    names = ((stem, _MASK_STEM.fullmatch(stem)) for stem in images)
    return [stem for stem, name in names if name and name["image"] in images]


def refuse_two_masks(root: Path, masks: Sequence[Path]) -> None:
    """Raise an ``InputError`` for masks of one image that are not its numbered lesions."""
    names = [_MASK_STEM.fullmatch(path.stem) for path in masks]
    if len(masks) > 1 and len({name and name["word"].lower() for name in names}) > 1:
        raise InputError(
            f"several masks: {', '.join(relative(path, root) for path in masks)}; keep one, or "
            "number those of several lesions: x_mask_1.png, x_mask_2.png"
        )


def _part(root: Path, top: Path) -> Part:
    images, *others = _named(top, IMAGES)
    candidates = _named(top, MASKS)
    problems = [
        Problem(relative(path, root), "holds no image, so no mask is read from it")
        for path in candidates
        if not _holds_images(path)
    ]
    candidates = [path for path in candidates if _holds_images(path)]
    masks, *more = candidates or [None]
    if more and masks and masks.name.lower() != MASKS[0]:
        several = ", ".join(f"{path.name}/" for path in candidates)
        raise InputError(f"{top}: {several} may all hold the masks; call the right one masks/")
    reason = f"is not read: the masks are in {masks.name}/" if masks else "did you mean masks/?"
    unread = more if masks else [p for p in _folders(top) if p != images and _holds_images(p)]
    problems += [Problem(relative(path, root), reason) for path in unread]
    problems += [
        Problem(relative(path, root), f"is not read: the images are in {images.name}/")
        for path in others
        if path not in unread
    ]
    folders = (masks, masks / "0") if masks else ()
    return Part(images, tuple(filter(Path.is_dir, folders)), top / "texts", tuple(problems))


def _named(folder: Path, names: Sequence[str]) -> list[Path]:
    """The folders in one that have these names in any case, in the order of the names."""
    found = [path for path in _folders(folder) if path.name.lower() in names]
    return sorted(found, key=lambda path: names.index(path.name.lower()))


def _folders(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if path.is_dir() and not is_clutter(path))


def _holds_images(folder: Path) -> bool:
    """Whether an image lies in a folder, or in the folder ``0`` in it."""
    folders = filter(Path.is_dir, (folder, folder / "0"))
    return any(p.suffix.lower() in IMAGE_SUFFIXES for f in folders for p in _files(f))


def _files(folder: Path) -> Iterable[Path]:
    return (path for path in files_in(folder) if not path.is_dir())
