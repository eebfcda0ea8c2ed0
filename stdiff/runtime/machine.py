"""What this machine can compute with."""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass

# Several times the second that nvidia-smi takes.
_TIMEOUT_S = 20


@dataclass(frozen=True)
class Machine:
    """Cores this process may use, and the first GPU if there is one."""

    cores: int
    gpu: str | None = None
    gpu_memory_mb: int = 0

    def __str__(self) -> str:
        gpu = f"{self.gpu} with {self.gpu_memory_mb:,} MB" if self.gpu else "no GPU"
        return f"{self.cores} CPU core(s), {gpu}"


def this_machine() -> Machine:
    """The cores, and the GPU as `nvidia-smi` reports it; torch takes seconds to import."""
    cores = len(os.sched_getaffinity(0))
    query = ["nvidia-smi", "--query-gpu=name,memory.total", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(query, capture_output=True, text=True, check=True, timeout=_TIMEOUT_S)
        name, _, memory_mb = done.stdout.splitlines()[0].rpartition(", ")
        return Machine(cores, name, int(memory_mb))
    except (OSError, subprocess.SubprocessError, IndexError, ValueError):
        return Machine(cores)
