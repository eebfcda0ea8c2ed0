"""Seconds per training step, with and without another process on the same cores.

OpenMP threads wait for each other by spinning, for GOMP_SPINCOUNT rounds (stdiff sets 1000). Each
line is the median over the steps of one process: stage 1 at the size of config/busi_cpu.yaml, with
as many threads as cores.

    python bench/threads.py
"""

import os
import subprocess
import sys

STEPS = """
import os, statistics, time
import torch
from stdiff.config.generator import ModelConfig, UNetConfig
from stdiff.diffusion.unet import build_unet

unet = build_unet(ModelConfig(unet=UNetConfig(layers=1)), 16, 0)
z, t, empty = torch.randn(32, 8, 16, 16), torch.randint(0, 1000, (32,)), torch.randn(32, 40, 64)
taken_s = []
for _ in range(8):
    began_s = time.perf_counter()
    unet(z, t, empty).sample.square().mean().backward()
    taken_s.append(time.perf_counter() - began_s)
print(statistics.median(taken_s[2:]))
"""
LIBRARY_DEFAULT = "libgomp's default"


def step_s(spin_count: str) -> float:
    """Median seconds per step, measured in a new process."""
    code = STEPS
    if spin_count == LIBRARY_DEFAULT:
        # stdiff sets the variable when it is imported; torch must be loaded before.
        code = "import torch\n" + STEPS
    environment = {k: v for k, v in os.environ.items() if k != "GOMP_SPINCOUNT"}
    if spin_count != LIBRARY_DEFAULT:
        environment["GOMP_SPINCOUNT"] = spin_count
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    return float(done.stdout)


def main() -> None:
    print(f"{os.cpu_count()} cores; seconds per step")
    for busy in (False, True):
        other = subprocess.Popen([sys.executable, "-c", "while True: pass"]) if busy else None
        for spin_count in (LIBRARY_DEFAULT, "1000"):
            beside = "beside a busy process" if busy else "alone"
            print(f"GOMP_SPINCOUNT {spin_count:<17} {beside:<22} {step_s(spin_count):6.2f}")
        if other:
            other.kill()


if __name__ == "__main__":
    main()
