"""Simulate BUSI, BUS-BRA and BUS-CoT with the layouts and defects of the real collections.

Each defect occurs at known image numbers, so that every run tests the readers: several masks per
image, masks in three modes, overlays, near-duplicates, a label conflict, wrong metadata, folds that
split patients, images in two collections.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from PIL import Image
from tqdm import tqdm

from stdiff.runtime.files import InputError, atomic_write, write_text
from stdiff.runtime.randomness import generator
from stdiff.simulation.bus_cot import write_bus_cot
from stdiff.simulation.frames import (
    TRUTH_COLUMNS,
    Frame,
    box_px,
    bus_bra_frame,
    bus_bra_sides,
    busi_frame,
    truth_row,
)
from stdiff.simulation.image import MIN_SIZE_PX

MIN_CASES = 3
_DEVICES = {
    "GE Logiq 7 @10-14MHz": 0.48,
    "GE Logiq 5 @10-12MHz": 0.43,
    "Toshiba Aplio 300 @12-14 MHz": 0.07,
    "U-Systems @10-14MHz": 0.02,
}
_SIDES = {"l": "left", "r": "right", "s": "single"}


def make_phantom(out: Path, cases: int, seed: int, size_px: int = 256) -> None:
    """Write simulated raw collections below `out`, each atomically.

    Makes ``Dataset_BUSI_with_GT/`` and ``BUSBRA/`` with `cases` images each, ``BUSCoT/`` with a
    third of that, and ``phantom_truth.csv`` with the findings of every image (columns: see
    :data:`stdiff.simulation.frames.TRUTH_COLUMNS`). Every defect occurs from 40 cases on.

    Args:
        out: folder to write into; a collection of the same name in it is replaced.
        cases: images of BUSI and of BUS-BRA, at least 3.
        seed: equal seeds give equal bytes.
        size_px: heights are 0.8-1.1 and widths 0.9-1.2 times this; at least 80.

    Raises:
        InputError: too few cases, too small a size or a negative seed; all of them are named.
    """
    problems = []
    if cases < MIN_CASES:
        problems.append(f"cases: {cases}; expected at least {MIN_CASES}, one of each BUSI class")
    if 0.8 * size_px < MIN_SIZE_PX:
        problems.append(f"size: {size_px} pixels; expected at least {round(MIN_SIZE_PX / 0.8)}")
    if seed < 0:
        problems.append(f"seed: {seed}; expected 0 or more")
    if problems:
        raise InputError("phantom: " + "; ".join(problems))
    out = Path(out)
    truth: list[dict[str, Any]] = []
    with atomic_write(out / "Dataset_BUSI_with_GT") as folder:
        truth += _write_busi(folder, cases, seed, size_px)
    with atomic_write(out / "BUSBRA") as folder:
        truth += _write_bus_bra(folder, cases, seed, size_px)
    with atomic_write(out / "BUSCoT") as folder:
        truth += write_bus_cot(folder, cases // 3, seed, size_px)
    write_text(out / "phantom_truth.csv", _csv_text(TRUTH_COLUMNS, truth))


# ---- BUSI


def _write_busi(folder: Path, cases: int, seed: int, size_px: int) -> list[dict[str, Any]]:
    counts = {"malignant": max(1, round(0.27 * cases)), "normal": max(1, round(0.17 * cases))}
    counts = {"benign": cases - sum(counts.values())} | counts
    numbered = [(name, number) for name in counts for number in range(1, counts[name] + 1)]
    for pathology in counts:
        (folder / pathology).mkdir(parents=True)
    truth = []
    for pathology, number in tqdm(numbered, desc="BUSI", unit="image", disable=None):
        frame = busi_frame(seed, pathology, number, size_px)
        stem = f"{pathology}/{pathology} ({number})"
        frame.picture.convert("RGB").save(folder / f"{stem}.png")
        for index, mask in enumerate(_busi_masks(frame, rgba=number % 40 == 4)):
            mask.save(folder / f"{stem}_mask{f'_{index}' if index else ''}.png")
        path = f"Dataset_BUSI_with_GT/{stem}.png"
        truth.append(truth_row("busi", f"{pathology} ({number})", path, frame))
    return truth


def _busi_masks(frame: Frame, *, rgba: bool) -> list[Image.Image]:
    """1-bit masks, the later ones RGBA if `rgba`; an empty RGB one if there is no lesion."""
    masks = [Image.fromarray(mask) for mask in frame.phantom.lesion_masks]
    if not masks:
        return [Image.new("RGB", frame.picture.size)]
    first, *rest = masks
    return [first.convert("1"), *(mask.convert("RGBA" if rgba else "1") for mask in rest)]


# ---- BUS-BRA


def _write_bus_bra(folder: Path, cases: int, seed: int, size_px: int) -> list[dict[str, Any]]:
    (folder / "Images").mkdir(parents=True)
    (folder / "Masks").mkdir()
    rows, truth = [], []
    views = _bus_bra_views(cases)
    for patient, side in tqdm(views, desc="BUS-BRA", unit="image", disable=None):
        frame = bus_bra_frame(seed, patient, side, size_px)
        name = f"{patient:04d}-{side}"
        frame.picture.save(folder / "Images" / f"bus_{name}.png")
        mask = Image.fromarray(frame.phantom.mask_HW).convert("1")
        mask.save(folder / "Masks" / f"mask_{name}.png")
        rows.append(_bus_bra_row(seed, patient, side, frame))
        truth.append(truth_row("bus_bra", f"bus_{name}", f"BUSBRA/Images/bus_{name}.png", frame))
    write_text(folder / "bus_data.csv", _csv_text(list(rows[0]), rows))
    for folds in (5, 10):
        folded = _cross_validation(seed, rows, folds)
        write_text(folder / f"{folds}-fold-cv.csv", _csv_text(list(folded[0]), folded))
    return truth


def _bus_bra_views(cases: int) -> list[tuple[int, str]]:
    """(patient, side) of the first `cases` images; half a pair at the end becomes a single."""
    views: list[tuple[int, str]] = []
    patient = 0
    while len(views) < cases:
        patient += 1
        sides = bus_bra_sides(patient) if len(views) + 1 < cases else ("s",)
        views += [(patient, side) for side in sides]
    return views


def _bus_bra_row(seed: int, patient: int, side: str, frame: Frame) -> dict[str, Any]:
    findings = frame.phantom.findings
    devices = generator(seed, "phantom bus_bra device", patient)
    x_min, y_min, x_max, y_max = box_px(frame.phantom.mask_HW)
    width, height = frame.picture.size
    if patient % 30 == 9 and side != "r":  # as for bus_0856-l: the CSV disagrees with the file
        width -= 7
    if patient % 40 == 6 and side != "r":  # as for bus_0845-s: a box that misses its lesion
        x_min, x_max = x_min // 2, x_max // 2
    return {
        "ID": f"bus_{patient:04d}-{side}",
        "Case": patient,
        "Histology": frame.histology,
        "Pathology": findings.pathology,
        "BIRADS": findings.birads.rstrip("ABC"),
        "Device": str(devices.choice(list(_DEVICES), p=list(_DEVICES.values()))),
        "Width": width,
        "Height": height,
        "Side": _SIDES[side],
        # 1-based corner; width and height are one short, as in the real file.
        "BBOX": f"[{x_min + 1},{y_min + 1},{x_max - x_min},{y_max - y_min}]",
    }


def _cross_validation(
    seed: int, rows: Sequence[dict[str, Any]], folds: int
) -> list[dict[str, Any]]:
    """kFold by patient; inner validation by image, which splits patients, as in the original."""
    rng = generator(seed, "phantom bus_bra folds", folds)
    patients = sorted({row["Case"] for row in rows})
    fold_of = {
        int(patient): place % folds + 1 for place, patient in enumerate(rng.permutation(patients))
    }
    return [
        {"ID": row["ID"], "Pathology": row["Pathology"], "kFold": fold_of[row["Case"]]}
        | {
            f"valid_{fold}": "NaN" if fold == fold_of[row["Case"]] else int(trained)
            for fold, trained in enumerate(rng.random(folds) < 0.8, start=1)
        }
        for row in rows
    ]


def _csv_text(columns: Sequence[str], rows: Iterable[dict[str, Any]]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
