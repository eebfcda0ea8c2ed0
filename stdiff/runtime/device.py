"""The device tensors are computed on."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from functools import cache
from pathlib import Path

import torch

from stdiff.runtime.errors import InputError
from stdiff.runtime.locks import file_lock

# The device that the user chose, for this process and those it starts.
CHOICE = "STDIFF_DEVICE"

# Open locks hold the claims until the process ends.
_CLAIMS: list[ExitStack] = []


@cache
def compute_device() -> torch.device:
    """The device that ``STDIFF_DEVICE`` (``--device``) names, else a GPU, else the CPU.

    Of several visible GPUs (`CUDA_VISIBLE_DEVICES`), one that no other stdiff process has claimed.
    Random numbers are drawn on the CPU, so the noise is the same on every device.

    Raises:
        InputError: torch sees no such device.
    """
    if wanted := os.environ.get(CHOICE):
        return _named(wanted)
    if not torch.cuda.is_available():
        return torch.device("cpu")
    names = [
        str(torch.cuda.get_device_properties(i).uuid) for i in range(torch.cuda.device_count())
    ]
    device = torch.device("cuda", claim(names) if len(names) > 1 else 0)
    torch.cuda.set_device(device)
    return device


def _named(name: str) -> torch.device:
    known = ["cpu", *(f"cuda:{i}" for i in range(torch.cuda.device_count()))]
    known += ["cuda"] if len(known) > 1 else []
    if name not in known:
        raise InputError(f"device {name!r}: torch sees none; expected one of {', '.join(known)}")
    device = torch.device(name)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    return device


def claim(names: Sequence[str], folder: Path | None = None) -> int:
    """Position of a device that no other process of this machine has claimed; waits for one.

    The claim is a kernel lock: it ends with the process, even by kill -9.

    Args:
        names: unique names of the devices, the same in every process.
        folder: of the lock files; default: one in the system's temporary folder.
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
            print(f"all {len(names)} devices are in use by other stdiff processes; waiting")
            said = True
        time.sleep(1)
