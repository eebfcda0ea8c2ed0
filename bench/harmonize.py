"""How fast a collection becomes a case table, against the least that any such step must do.

The floor decodes every image and mask, resizes both to the square and encodes them as PNG, with
as many processes, and nothing else. Ours does that and also finds duplicates, descriptors and
burnt-in marks, hashes the files and writes the table. Both run in turn; the ratio is taken pair
by pair.

    python bench/harmonize.py                                   simulated files, three sizes
    python bench/harmonize.py --images 20000 --repeats 1
    python bench/harmonize.py --raw FOLDER --collection busi    files of your own
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import psutil
from PIL import Image
from scipy.ndimage import gaussian_filter

from stdiff.datasets.readers import read_raw
from stdiff.files import encode_png, read_image

SIZE_PX = 256


def floor_of(case, size_px):
    """Decode, resize, encode."""
    for path, resampling in (
        (case.image_path, Image.Resampling.LANCZOS),
        *((mask, Image.Resampling.NEAREST) for mask in case.mask_paths),
    ):
        square = read_image(path).convert("L").resize((size_px, size_px), resampling)
        encode_png(np.asarray(square))


def run_floor(collection, raw, processes):
    cases = read_raw(collection, raw)[0]
    with ProcessPoolExecutor(processes) as pool:
        for _ in pool.map(partial(floor_of, size_px=SIZE_PX), cases, chunksize=16):
            pass


def run_ours(collection, raw, processes, folder):
    command = [*(sys.executable, "-m", "stdiff.cli", "harmonize", collection, str(raw))]
    command += [*("--size", str(SIZE_PX), "--processes", str(processes))]
    command += [*("--out", str(Path(folder) / "cases.parquet"))]
    subprocess.run(command, check=True, stderr=subprocess.DEVNULL)


def peak_memory_mb(work):
    """Greatest sum of the resident memory of this process' children while ``work`` runs."""
    peak, done = [0], threading.Event()

    def watch():
        while not done.wait(0.1):
            total = 0
            for child in psutil.Process().children(recursive=True):
                try:
                    total += child.memory_info().rss
                except psutil.NoSuchProcess:
                    continue
            peak[0] = max(peak[0], total)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        work()
    finally:
        done.set()
        watcher.join()
    return peak[0] / 2**20


def timed(work):
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def write_frame(number, folder):
    """A frame and its mask in BUSI's layout: tissue, depth gradient, a dark ellipse."""
    rng = np.random.default_rng([5, number])
    height, width = int(rng.integers(400, 560)), int(rng.integers(420, 640))
    tissue = np.kron(rng.normal(size=(height // 8 + 1, width // 8 + 1)), np.ones((8, 8)))
    grey = gaussian_filter(tissue, 4)[:height, :width] * 60
    grey += np.linspace(140, 30, height)[:, None] + rng.normal(0, 18, (height, width))
    ys, xs = np.ogrid[:height, :width]
    a, b = width * rng.uniform(0.08, 0.22), height * rng.uniform(0.06, 0.16)
    x, y = width * rng.uniform(0.3, 0.7), height * rng.uniform(0.3, 0.6)
    mask = ((xs - x) / a) ** 2 + ((ys - y) / b) ** 2 <= 1
    grey[mask] -= 45
    stem = folder / "benign" / f"benign ({number})"
    Image.fromarray(np.clip(grey, 0, 255).astype(np.uint8)).save(f"{stem}.png", compress_level=1)
    Image.fromarray(mask).save(f"{stem}_mask.png")


def write_collection(folder, images, processes):
    for name in ("benign", "malignant", "normal"):
        (folder / name).mkdir(parents=True)
    with ProcessPoolExecutor(processes) as pool:
        list(pool.map(partial(write_frame, folder=folder), range(1, images + 1), chunksize=32))


def compare(collection, raw, processes, repeats):
    count = len(read_raw(collection, raw)[0])
    ratios, speeds, floors, memory = [], [], [], 0.0
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(repeats):
            floor = timed(lambda: run_floor(collection, raw, processes))
            started = time.perf_counter()
            memory = max(
                memory, peak_memory_mb(lambda: run_ours(collection, raw, processes, folder))
            )
            ours = time.perf_counter() - started
            ratios.append(floor / ours)
            speeds.append(count / ours)
            floors.append(count / floor)
    print(
        f"{collection}, {count} images, {processes} process(es): "
        f"{statistics.median(speeds):.1f} images/s, floor {statistics.median(floors):.1f}, "
        f"ratio {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f}, "
        f"{repeats} pairs), peak memory {memory:.0f} MB",
        flush=True,
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--images", type=int, nargs="*", default=[500, 1000, 2000])
    parser.add_argument("--raw", type=Path, help="raw folder, instead of simulated files")
    parser.add_argument("--collection", default="busi")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3)
    o = parser.parse_args()
    if o.raw:
        compare(o.collection, o.raw, o.processes, o.repeats)
        return
    for images in o.images:
        with tempfile.TemporaryDirectory() as folder:
            root = Path(folder) / "Dataset_BUSI_with_GT"
            write_collection(root, images, o.processes)
            compare("busi", root, o.processes, o.repeats)


if __name__ == "__main__":
    main()
