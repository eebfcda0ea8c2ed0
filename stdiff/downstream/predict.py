"""Segment images with trained weights: a mask for each, and a table of them all.

torch is loaded only after everything that can be refused without it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import pandas as pd
from tqdm import tqdm

from stdiff.datasets.pixels import read_picture, read_pixels
from stdiff.datasets.raw import IMAGE_SUFFIXES, Problem, RawCase, Reading, files_in
from stdiff.datasets.readers import read_raw
from stdiff.export.file_names import name_giver
from stdiff.runtime.files import InputError, atomic_write
from stdiff.runtime.images import decode_png, encode_png
from stdiff.table.shard_list import tables_in
from stdiff.table.spreadsheet import as_shown
from stdiff.table.streaming import iterate_rows

if TYPE_CHECKING:
    from stdiff.downstream.segmenter import Segmenter

# Columns of the table beside the masks.
COLUMNS = [
    *("image", "mask", "height_px", "width_px", "lesions", "area_px", "area_mm2"),
    *("dice", "problem"),
]
_READ = ("case_id", "image", "mask", "pixel_spacing_mm", "transform")
# Ends of the names of masks that lie beside their images.
_MASK_ENDS = ("_mask", "_seg", "_gt", "_segmentation", "_label")


def predict(
    images: Sequence[Path],
    weights: Path,
    out: Path,
    *,
    collection: str | None = None,
    network: str | None = None,
    parquet: bool = False,
) -> str:
    """Write ``masks/`` (PNG, 0 or 255, in the images' own sizes) and a table of all images.

    The table's columns: ``image``; ``mask``, the file below ``out``; ``height_px``, ``width_px``;
    ``lesions``, the number of regions (8 neighbours); ``area_px``; ``area_mm2`` where the pixel
    spacing is known; ``dice`` where there is a reference mask (of a case table in the size of its
    images; empty if both masks are); ``problem``, why the image was not segmented or its reference
    mask not used.

    Args:
        images: a folder of images (with ``images/`` and ``masks/``, or only images), an image, or
            case tables.
        weights: of `stdiff segment`.
        out: a folder that does not exist yet, or is empty; it is complete or absent.
        collection: read the folder as this published collection.
        network: see :meth:`stdiff.downstream.segmenter.Segmenter.load`.
        parquet: write ``cases.parquet`` instead of ``cases.csv``.

    Returns:
        One line: what was made, and what was left out.

    Raises:
        InputError: no image, unusable weights, two images of one name, a table
            of images of another size, or a folder that already holds something.
    """
    out = Path(out)
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise InputError(f"{out}: already holds something; name a new folder or remove it first")
    tables, cases, problems = _tables(images), [], []
    if not tables:
        cases, problems = _read_images(images, collection)
    names = _table_ids(tables) if tables else [case.case_id for case in cases]
    if not names:
        raise InputError(f"{', '.join(map(str, images))}: no image to segment{_few(problems)}")
    _refuse_repeats(names)
    name_of = name_giver(map(_short, names))

    from stdiff.downstream.segmenter import Segmenter

    segmenter = Segmenter.load(weights, network)
    found = _of_tables(tables, segmenter) if tables else _of_files(cases, segmenter)
    rows = []
    with atomic_write(out) as temporary:
        (temporary / "masks").mkdir(parents=True)
        progress = {"desc": "segment", "unit": "image", "mininterval": 1}
        for row, mask_HW in tqdm(found, total=len(names), **progress):
            if mask_HW is None:
                problems.append(Problem(row["image"], row["problem"]))
                continue
            row["mask"] = f"masks/{name_of(_short(row.pop('case_id')))}.png"
            (temporary / row["mask"]).write_bytes(encode_png(mask_HW))
            rows.append(row | _measures(mask_HW))
        if not rows:
            raise InputError(f"none of the {len(names)} images can be segmented{_few(problems)}")
        left_out = [{"image": one.source_path, "problem": one.reason} for one in problems]
        table = pd.DataFrame([*rows, *left_out], columns=COLUMNS)
        for name in ("height_px", "width_px", "lesions", "area_px"):
            table[name] = table[name].astype("Int64")
        if parquet:
            table.to_parquet(temporary / "cases.parquet", index=False)
        else:
            shown = table.map(lambda cell: as_shown(cell) if isinstance(cell, str) else cell)
            shown.to_csv(temporary / "cases.csv", index=False)
    dice = table["dice"].dropna()
    agreement = f", mean Dice {dice.mean():.3f} over {len(dice)} with a mask" if len(dice) else ""
    return (
        f"{len(rows)} image(s) segmented{agreement}{_few(problems)}. Masks: {out}/masks; areas"
        f"{' and Dice' if len(dice) else ''}: {out}/cases.{'parquet' if parquet else 'csv'}"
    )


def _few(problems: Sequence[Problem]) -> str:
    """The first problems, for a message."""
    if not problems:
        return ""
    listed = "; ".join(f"{one.source_path}: {one.reason}" for one in problems[:3])
    return f"; {len(problems)} file(s) left out ({listed}{'; ...' if len(problems) > 3 else ''})"


def _tables(images: Sequence[Path]) -> list[Path]:
    """The case tables, if these are meant: files, or a folder of shards."""
    listed = [tables_in(p) if any(p.glob("*.parquet")) else [p] for p in images]
    tables = [path for paths in listed for path in paths if path.suffix == ".parquet"]
    if len(images) > 1 and len(tables) < max(len(images), sum(map(len, listed))):
        raise InputError("expected one folder of images, one image, or case tables (.parquet)")
    return tables


def _table_ids(tables: Iterable[Path]) -> list[str]:
    return [row["case_id"] for table in tables for row in iterate_rows(table, ("case_id",))]


def _read_images(images: Sequence[Path], collection: str | None) -> Reading:
    """The images of a folder, with masks where it is laid out as `stdiff` reads them."""
    (path,) = images
    if collection:
        return read_raw(collection, path)
    if path.is_file():
        return [_image(path)], []
    if not path.is_dir():
        raise InputError(f"{path}: no such file or folder; expected images, or case tables")
    files = [file for file in files_in(path) if file.suffix.lower() in IMAGE_SUFFIXES]
    if not files or (path / "images").is_dir():
        return read_raw("folder", path)
    stems = {file.stem for file in files}
    for file in files:
        if any(file.stem.removesuffix(end) in stems - {file.stem} for end in _MASK_ENDS):
            raise InputError(
                f"{file}: looks like the mask of another image of this folder; put images into "
                "images/ and masks of the same names into masks/, or name a published collection "
                "with --collection"
            )
    reason = f"no image; expected a file of type {', '.join(IMAGE_SUFFIXES)}"
    others = [Problem(file.name, reason) for file in files_in(path) if file not in files]
    return [_image(file) for file in files], others


def _image(file: Path) -> RawCase:
    """An image of which nothing else is known."""
    return RawCase(case_id=f"folder/{file.stem}", root=file.parent, image_path=file)


def _refuse_repeats(case_ids: Iterable[str]) -> None:
    repeated = [case_id for case_id, times in Counter(case_ids).items() if times > 1]
    if repeated:
        raise InputError(
            f"{len(repeated)} names occur more than once, e.g. {repeated[0]}; rename one image, or "
            "name each table once"
        )


def _short(case_id: str) -> str:
    return case_id.removeprefix("folder/")


# What is known of an image before its mask is written, and the mask; None if there is none.
Found = tuple[dict[str, Any], np.ndarray | None]


def _of_files(cases: Iterable[RawCase], segmenter: Segmenter) -> Iterator[Found]:
    from stdiff.downstream.metrics import case_dice

    for case in cases:
        row: dict[str, Any] = {"case_id": case.case_id, "image": case.source_path}
        try:
            mask_HW = segmenter.segment_picture(read_picture(case.image_path))
        except InputError as error:
            yield row | {"problem": str(error)}, None
            continue
        try:
            reference_HW = read_pixels(case).mask_HW
        except InputError as error:
            reference_HW, row["problem"] = None, f"reference mask not used: {error}"
        if reference_HW is not None:
            row["dice"] = case_dice(mask_HW[None], reference_HW[None])[0]
        if case.pixel_spacing_mm:
            row["area_mm2"] = (mask_HW > 0).sum() * case.pixel_spacing_mm**2
        yield row, mask_HW


def _of_tables(tables: Iterable[Path], segmenter: Segmenter) -> Iterator[Found]:
    from stdiff.downstream.metrics import case_dice
    from stdiff.downstream.segmenter import mask_of

    for table in tables:
        for case in iterate_rows(table, _READ):
            row: dict[str, Any] = {"case_id": case["case_id"], "image": case["case_id"]}
            if not case["image"]:
                yield row | {"problem": "no image in the table"}, None
                continue
            logits_HW = segmenter.logits(decode_png(case["image"]["bytes"]))
            stored_HW = mask_of(logits_HW)
            if case["mask"]:
                reference_HW = decode_png(case["mask"]["bytes"])
                row["dice"] = case_dice(stored_HW[None], reference_HW[None])[0]
            mask_HW = mask_of(logits_HW, case["transform"])
            if case["pixel_spacing_mm"]:
                # The table has the spacing of its own images along x.
                scale = case["transform"]["scale_x"] if case["transform"] else 1
                row["area_mm2"] = (mask_HW > 0).sum() * (scale * case["pixel_spacing_mm"]) ** 2
            yield row, mask_HW


def _measures(mask_HW: np.ndarray) -> dict[str, int]:
    height, width = mask_HW.shape
    return {
        "height_px": height,
        "width_px": width,
        "lesions": cv2.connectedComponents(mask_HW)[0] - 1,
        "area_px": int((mask_HW > 0).sum()),
    }
