"""Where tensors are computed on."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from functools import cache
from pathlib import Path

import torch

from stdiff.runtime.locks import file_lock

# Kept open until the process ends, and with them the claims.
_CLAIMS: list[ExitStack] = []


@cache
def compute_device() -> torch.device:
    """The GPU of this process, else the CPU.

    Where the scheduler leaves more than one to it (`CUDA_VISIBLE_DEVICES`), it takes one that no
    other process of ours has, whether they train together or not. Random numbers are drawn on the
    CPU everywhere, so all start from the same noise.
    """
    if not torch.cuda.is_available():
        return torch.device("cpu")
    names = [
        str(torch.cuda.get_device_properties(i).uuid) for i in range(torch.cuda.device_count())
    ]
    device = torch.device("cuda", claim(names) if len(names) > 1 else 0)
    torch.cuda.set_device(device)
    return device


def claim(names: Sequence[str], folder: Path | None = None) -> int:
    """Position of a device that no other process of this machine has claimed; waits for one.

    The claim is a lock of the kernel, so it ends with the process, however that ends.

    Args:
        names: What tells the devices apart, whatever each process calls them.
        folder: Of the lock files; all users' temporary one by default.
    """
    folder = Path(folder or Path(tempfile.gettempdir()) / f"stdiff-devices-{os.getuid()}")
    folder.mkdir(parents=True, exist_ok=True)
    said = False
    while True:
        for position, name in enumerate(names):
            with ExitStack() as claim:
                if claim.enter_context(file_lock(folder / f"{name}.lock")):
                    _CLAIMS.append(claim.pop_all())
                    return position
        if not said:
            print(f"all {len(names)} devices are in use by other processes of stdiff; waiting")
            said = True
        time.sleep(1)
