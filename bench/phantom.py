"""Images/s of the simulator on one core at 256 px: `python bench/phantom.py`."""

import statistics
import time

from stdiff.runtime.randomness import generator, seed_sequence
from stdiff.simulation.findings import random_findings
from stdiff.simulation.image import simulate_image

SIZE_PX = 256
IMAGES = 60
REPEATS = 5


def images_per_s() -> float:
    findings = [
        random_findings(generator(0, "bench phantom", index), ("benign", "malignant")[index % 2])
        for index in range(IMAGES)
    ]
    start = time.perf_counter()
    for index, row in enumerate(findings):
        simulate_image(seed_sequence(0, "bench phantom", index), row, SIZE_PX)
    return IMAGES / (time.perf_counter() - start)


if __name__ == "__main__":
    images_per_s()  # warms caches and FFT plans
    rates = [images_per_s() for _ in range(REPEATS)]
    print(
        f"phantom {SIZE_PX} px, one core: {statistics.median(rates):.1f} images/s "
        f"(median of {REPEATS} x {IMAGES} images; {min(rates):.1f}-{max(rates):.1f})"
    )
