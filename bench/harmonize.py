"""Time of `stdiff harmonize` against the minimum work of any such step.

The floor decodes every image and mask, resizes both to the square and encodes them as PNG, with as
many processes, and does nothing else. Ours also finds duplicates, descriptors and burnt-in marks,
hashes the files and writes the table. All run in turn; ratios are taken pair by pair. There are two
floors: PNG encoding with Pillow's default and with ours (run lengths only, two fifths of the time).

    python bench/harmonize.py                                   simulated files, three sizes
    python bench/harmonize.py --images 20000 --repeats 1
    python bench/harmonize.py --raw FOLDER --collection busi    files of your own
"""

import argparse
import io
import statistics
import tempfile
import threading
import time
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import psutil
from PIL import Image

from stdiff.datasets.harmonize import harmonize
from stdiff.datasets.readers import read_raw
from stdiff.datasets.rows import Harmonization
from stdiff.runtime.images import read_image
from stdiff.runtime.workers import mapped

SIZE_PX = 256
FLOORS = {"floor": {}, "floor with our encoding": {"compress_type": 3}}


def floor_of(case, encoding):
    """Decode, resize, encode."""
    for path, resampling in (
        (case.image_path, Image.Resampling.LANCZOS),
        *((mask, Image.Resampling.NEAREST) for mask in case.mask_paths),
    ):
        square = read_image(path).convert("L").resize((SIZE_PX, SIZE_PX), resampling)
        square.save(io.BytesIO(), format="PNG", **encoding)


def run_floor(collection, raw, processes, encoding):
    cases = read_raw(collection, raw)[0]
    for _ in mapped(partial(floor_of, encoding=encoding), cases, processes, chunk=16):
        pass


def run_ours(collection, raw, processes, folder):
    out = Path(folder)
    harmonize(
        *(collection, raw, out / "cases.parquet", out / "quarantine.parquet"),
        how=Harmonization(SIZE_PX),
        processes=processes,
    )


def peak_memory_mb(work):
    """Peak memory of this process and its children while ``work`` runs.

    Shared pages count once (proportional set size).
    """
    peak, done = [0], threading.Event()

    def watch():
        while not done.wait(0.1):
            total, this = 0, psutil.Process()
            for process in (this, *this.children(recursive=True)):
                try:
                    total += process.memory_full_info().pss
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
    """A frame and its mask in BUSI's layout: tissue, depth gradient, a dark ellipse.

    Frames differ as much as real ones: one or two pairs in a thousand are candidates of the search
    for duplicates (BUS-BRA 0.6, BUSI 2.8 in a thousand). With smoother frames there were ten times
    as many candidates, and the search took as long as all other work.
    """
    rng = np.random.default_rng([5, number])
    height, width = int(rng.integers(400, 560)), int(rng.integers(420, 640))
    tissue = cv2.resize(rng.normal(size=(height // 16, width // 16)), (width, height))
    # Speckle blurred as by a beam; white noise would not resemble ultrasound.
    speckle = cv2.GaussianBlur(rng.normal(size=(height, width)), None, sigmaX=2.0, sigmaY=1.2)
    anatomy = cv2.resize(
        rng.normal(size=(height // 64, width // 64)), (width, height), interpolation=cv2.INTER_CUBIC
    )
    grey = 25 * tissue + 7 * anatomy + 14 * speckle / speckle.std()
    grey += np.linspace(140, 30, height)[:, None]
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
    seconds = {name: [] for name in (*FLOORS, "ours")}
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(repeats):
            for name, encoding in FLOORS.items():
                work = partial(run_floor, collection, raw, processes, encoding)
                seconds[name].append(timed(work))
            seconds["ours"].append(timed(partial(run_ours, collection, raw, processes, folder)))
        # In a separate run, since measuring memory takes time.
        memory_mb = peak_memory_mb(partial(run_ours, collection, raw, processes, folder))
    print(
        f"{collection}, {count} images, {processes} process(es), {repeats} pair(s): "
        f"{count / statistics.median(seconds['ours']):.0f} images/s, peak memory {memory_mb:.0f} MB"
    )
    for name in FLOORS:
        ratios = [f / o for f, o in zip(seconds[name], seconds["ours"], strict=True)]
        print(
            f"    {count / statistics.median(seconds[name]):.0f} images/s of the {name}: ratio "
            f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})",
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
