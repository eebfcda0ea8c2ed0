"""Flags found in simulated frames against what was burnt in, and milliseconds an image.

python bench/marks.py
"""

import csv
import statistics
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np

from stdiff.overlays.detection import find_marks
from stdiff.runtime.images import image_size_px, read_image
from stdiff.simulation.collections import make_phantom

CASES, SEED, SIZES_PX = 120, 0, (256, 512)
FLAG_OF = {"callipers": "callipers", "text": "burnt_in_text", "colour": "colour"}
SCORED = (*FLAG_OF.values(), "black_border", "ruler")


def decoded(path: Path) -> tuple[np.ndarray, np.ndarray | None]:
    image = read_image(path)
    rgb_HWC = np.asarray(image.convert("RGB")) if image.mode != "L" else None
    return np.asarray(image.convert("L")), rgb_HWC


def frames(folder: Path) -> list[tuple[Path, set[str]]]:
    """Each picture of a simulated collection with the flags it should have."""
    with (folder / "phantom_truth.csv").open(encoding="utf-8") as handle:
        rows = list(csv.DictReader(handle))
    listed = []
    for row in rows:
        path = folder / row["path"]
        flags = {FLAG_OF[mark] for mark in row["marks"].split(";") if mark}
        if "BUS-Lesion" in row["path"]:
            continue  # a crop need not hold what its frame's row says
        if "BUS-Expert" in row["path"]:
            key = path.name.split("@")[0]
            cropped, raw = (path.with_name(f"{key}@{part}.png") for part in ("cropped", "raw"))
            listed.append((cropped, flags))
            if image_size_px(raw) == image_size_px(cropped):
                continue
            path, flags = raw, flags | {"burnt_in_text", "black_border"}
        listed.append((path, flags))
    return listed


def report(size_px: int) -> None:
    counts = {flag: [0, 0, 0] for flag in SCORED}
    taken_ms = []
    with tempfile.TemporaryDirectory() as name:
        make_phantom(Path(name), CASES, SEED, size_px)
        for path, expected in frames(Path(name)):
            grey_HW, rgb_HWC = decoded(path)
            began_s = time.process_time()
            flags = find_marks(grey_HW, rgb_HWC).flags
            taken_ms.append(1e3 * (time.process_time() - began_s))
            for flag, count in counts.items():
                there, found = flag in expected, flag in flags
                count[0] += there and found
                count[1] += found and not there
                count[2] += there and not found
    print(f"{size_px} px, {len(taken_ms)} images, median {statistics.median(taken_ms):.2f} ms")
    for flag, (hits, false, missed) in counts.items():
        print(
            f"  {flag:<14} recall {hits / max(1, hits + missed):.3f} precision "
            f"{hits / max(1, hits + false):.3f} ({hits + missed} marked)"
        )


if __name__ == "__main__":
    cv2.setNumThreads(1)
    for size in SIZES_PX:
        report(size)
