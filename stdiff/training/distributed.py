"""Data-parallel training in several processes, launched by `stdiff train` or by `torchrun`.

Each process computes its slice of every batch; losses and gradients are summed over all of them.
Every process draws the random numbers of the whole batch, so the number of processes changes only
the order of sums. A single process communicates nothing.

Plain torch: accelerate's `reduce` sends one message a tensor and knows no error for a lost process.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
import torch.distributed as dist

from stdiff.runtime.device import compute_device
from stdiff.runtime.environment import check_launched, world_size
from stdiff.runtime.files import InputError


class ProcessLost(RuntimeError):
    """Another process of the training has ended."""


def launch(processes: int) -> None:
    """Replace this process by ``processes`` copies of its command; a copy joins the others.

    The number is not passed on the command line, so changing it reruns no job.
    """
    if processes > 1 and "WORLD_SIZE" not in os.environ:
        launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
        os.execv(sys.executable, [sys.executable, *launcher, "-m", "stdiff", *sys.argv[1:]])
    join()


def join() -> None:
    """Join the process group, if there is one; calling it again does nothing."""
    if world_size() > 1 and not dist.is_initialized():
        check_launched()
        device = compute_device()  # must be selected before NCCL starts
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo")


def num_processes() -> int:
    """Number of processes that train together."""
    return dist.get_world_size() if dist.is_initialized() else 1


def is_main_process() -> bool:
    """Whether this process writes files and prints."""
    return _rank() == 0


def local_slice(batch: int) -> slice:
    """The rows of a batch that this process computes.

    Raises:
        InputError: the batch cannot be divided evenly.
    """
    count = num_processes()
    share, rest = divmod(batch, count)
    if rest:
        raise InputError(
            f"a batch of {batch} images cannot be shared by {count} processes; set batch to "
            f"{share * count or count}, or change training.num_processes"
        )
    return slice(_rank() * share, (_rank() + 1) * share)


def all_reduce(tensors: Sequence[torch.Tensor]) -> None:
    """Replace each tensor by its sum over all processes; unchanged if a process is lost.

    Raises:
        ProcessLost: another process has ended.
    """
    if num_processes() == 1 or not tensors:
        return
    flat = torch.cat([tensor.reshape(-1) for tensor in tensors])
    with _naming_lost_processes():
        dist.all_reduce(flat)
    parts = flat.split([tensor.numel() for tensor in tensors])
    for tensor, part in zip(tensors, parts, strict=True):
        tensor.copy_(part.view_as(tensor))


def any_process(flag: bool) -> bool:
    """Whether the flag is set in any process; all get the same answer."""
    total = torch.tensor(float(flag), device=compute_device())
    all_reduce([total])
    return bool(total)


def barrier() -> None:
    """Wait until all processes have reached this line."""
    if num_processes() > 1:
        with _naming_lost_processes():
            dist.barrier()


@contextmanager
def main_process_first() -> Iterator[None]:
    """The main process runs the block alone; then the others run it."""
    if not is_main_process():
        barrier()
    yield
    if is_main_process():
        barrier()


def _rank() -> int:
    return dist.get_rank() if dist.is_initialized() else 0


@contextmanager
def _naming_lost_processes() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        raise ProcessLost(
            f"another of the {num_processes()} processes has ended ({error})"
        ) from error
