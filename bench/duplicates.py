"""Recall, precision, time and memory of the searches for duplicates and lesion crops.

    python bench/duplicates.py recall                     simulated frames
    python bench/duplicates.py recall --data DIR          BUS-BRA in DIR, second half of patients
    python bench/duplicates.py time --frames 20000        seconds and peak RSS

A copy is searched among all frames and all other copies of its kind. A pair of a frame and its copy
is right, a pair of two patients wrong; two views of one patient count as neither. The copies are
those of tests/copies.py.
"""

import argparse
import resource
import sys
import time
import zlib
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.ndimage import gaussian_filter

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from copies import COPIES, lesion_crop, phantom  # noqa: E402

from stdiff.datasets.pixels import read_pixels  # noqa: E402
from stdiff.datasets.readers import read_raw  # noqa: E402
from stdiff.near_duplicates import duplicates  # noqa: E402
from stdiff.near_duplicates.crops import crop_pairs  # noqa: E402
from stdiff.near_duplicates.duplicates import duplicate_pairs  # noqa: E402
from stdiff.near_duplicates.fingerprint import content_boxes, fingerprint, fingerprint_array  # noqa: E402

SEED = 20


def prints(images: list[np.ndarray]) -> np.ndarray:
    return fingerprint_array([fingerprint(image) for image in images])


def frames(data: Path | None, count: int) -> tuple[list, list, np.ndarray]:
    """Images, masks and patients."""
    if data is None:
        made = [phantom(SEED, index) for index in range(count)]
        return [image for image, _ in made], [mask for _, mask in made], np.arange(count)
    # The other half of the patients is what the thresholds were chosen on.
    cases = [c for c in read_raw("bus_bra", data)[0] if zlib.crc32(c.patient_id.encode()) % 2]
    pixels = [read_pixels(case) for case in cases]
    # Patient 65 is patient 44: the same two frames, without the callipers.
    patients = np.array([{"65": "44"}.get(c.patient_id, c.patient_id) for c in cases])
    return [p.picture.grey_HW for p in pixels], [p.mask_HW for p in pixels], patients


def recall(data: Path | None, count: int) -> None:
    images, masks, patients = frames(data, count)
    originals = prints(images)
    print(f"{len(images)} frames; recall, wrong pairs, precision")
    for number, (name, change) in enumerate(COPIES.items()):
        copies = [change(im, np.random.default_rng([number, k])) for k, im in enumerate(images)]
        pairs = duplicate_pairs(np.concatenate([originals, prints(copies)]))
        first, second = pairs["i"] % len(images), pairs["j"] % len(images)
        report(name, len(images), first == second, patients[first] != patients[second], pairs)
    native_px = np.array([image.shape for image in images])
    for name, changed in (("lesion crop", False), ("lesion crop, changed", True)):
        cut = [
            lesion_crop(image, mask, np.random.default_rng([99, k]), changed=changed)[0]
            for k, (image, mask) in enumerate(zip(images, masks, strict=True))
        ]
        sides_px = np.array([crop.shape for crop in cut])
        pairs = crop_pairs(prints(cut), sides_px, originals, native_px)
        wrong = patients[pairs["crop"]] != patients[pairs["frame"]]
        report(name, len(images), pairs["crop"] == pairs["frame"], wrong, pairs)


def report(name: str, count: int, right: pd.Series, wrong: np.ndarray, pairs: pd.DataFrame) -> None:
    precision = right.sum() / max(right.sum() + wrong.sum(), 1)
    weakest = pairs["correlation"][right].min()
    strongest = pairs["correlation"][wrong].max()
    print(
        f"{name:28s} {right.sum() / count:6.3f} {wrong.sum():4d} {precision:6.3f}   "
        f"weakest right {weakest:.2f}, strongest wrong {strongest:.2f}",
        flush=True,
    )


def textures(count: int) -> np.ndarray:
    """(count, 96, 96) uint8: noise under shared layers, so that frames look alike as real do."""
    layers = gaussian_filter(np.random.default_rng(SEED).normal(size=(96, 1)), (3, 0))
    made = np.empty((count, 96, 96), dtype=np.uint8)
    for index in range(count):
        rng = np.random.default_rng([SEED, index])
        rough = gaussian_filter(rng.normal(size=(96, 96)), (1.5, 4))
        grey = rough / rough.std() + LAYERS * layers / layers.std()
        made[index] = np.clip(90 + 25 * grey, 0, 255)
    return made


# Chosen so that as many pairs become candidates as among BUSI and BUS-BRA: 4 in 10 000.
LAYERS = 0.75


def cost(count: int, crops: int) -> None:
    made = textures(count)
    before = peak_mib()
    start = time.perf_counter()
    pairs = duplicate_pairs(made)
    taken_s, peak = time.perf_counter() - start, peak_mib()
    some = made[:2000]
    density = len(duplicates._candidates(some, content_boxes(some))) / len(some) ** 2
    print(
        f"{count} fingerprints: {taken_s:.1f} s, {len(pairs)} pairs, peak RSS {peak:.0f} MiB "
        f"({before:.0f} MiB before the search); candidates {1e4 * density:.1f} in 10 000 pairs"
    )
    if crops:
        native_px = np.tile([400, 500], (count, 1))
        small = made[:crops, 20:60, 20:70].copy()
        sides_px = np.tile([40 * 400 / 96, 50 * 500 / 96], (crops, 1))
        start = time.perf_counter()
        pairs = crop_pairs(prints(list(small)), sides_px, made, native_px)
        print(
            f"{crops} crops in {count} frames: {time.perf_counter() - start:.1f} s, "
            f"{len(pairs)} pairs, peak RSS {peak_mib():.0f} MiB"
        )


def peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("what", choices=["recall", "time"], nargs="?", default="recall")
    parser.add_argument("--data", type=Path)
    parser.add_argument("--frames", type=int, default=200)
    parser.add_argument("--crops", type=int, default=0)
    given = parser.parse_args()
    if given.what == "recall":
        recall(given.data, given.frames)
    else:
        cost(given.frames, given.crops)
