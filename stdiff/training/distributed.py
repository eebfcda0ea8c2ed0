"""Several processes that train one model, started by `stdiff train` itself or by `torchrun`.

Each computes its part of every batch; losses and gradients are summed over all of them. What is
drawn at random is drawn for the whole batch by each, so that their number changes nothing but the
order of sums. Started alone, there is one process and nothing is sent.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import distributed

from stdiff.runtime.device import compute_device
from stdiff.runtime.files import InputError


class Lost(RuntimeError):
    """Another of the processes has ended, so that nothing can be shared any more."""


def start(processes: int) -> None:
    """Run this command in so many processes of this machine instead; returns if it is one of them.

    The number stands in no command, so that another one makes nothing again.
    """
    if processes == 1 or "WORLD_SIZE" in os.environ:
        return
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    os.execv(sys.executable, [sys.executable, *launcher, "-m", "stdiff", *sys.argv[1:]])


def join() -> None:
    """Meet the other processes, if there are any; once in a process."""
    if int(os.environ.get("WORLD_SIZE", 1)) > 1 and not distributed.is_initialized():
        # Before they meet: what they send each other lies on it.
        compute_device()
        distributed.init_process_group("nccl" if torch.cuda.is_available() else "gloo")


def count() -> int:
    """How many processes train together."""
    return distributed.get_world_size() if distributed.is_initialized() else 1


def is_first() -> bool:
    """Whether this process is the one that writes files and talks."""
    return not distributed.is_initialized() or distributed.get_rank() == 0


def my_part(batch: int) -> slice:
    """The rows of a batch that this process computes.

    Raises:
        InputError: the batch cannot be shared out evenly.
    """
    if batch % count():
        raise InputError(
            f"a batch of {batch} images cannot be shared by {count()} processes; set batch to "
            f"{batch // count() * count() or count()}, or start another number of them"
        )
    share = batch // count()
    rank = distributed.get_rank() if count() > 1 else 0
    return slice(rank * share, (rank + 1) * share)


def sum_up(tensors: Sequence[torch.Tensor]) -> None:
    """Replace each tensor by its sum over all processes; if one is lost, by nothing else.

    Raises:
        Lost: a process has ended.
    """
    if count() == 1 or not tensors:
        return
    flat = torch.cat([tensor.reshape(-1) for tensor in tensors])
    with _all_there():
        distributed.all_reduce(flat)
    parts = flat.split([tensor.numel() for tensor in tensors])
    for tensor, part in zip(tensors, parts, strict=True):
        tensor.copy_(part.view_as(tensor))


def agreed(wish: bool, device: torch.device) -> bool:
    """Whether any process wishes it; all get the same answer."""
    if count() == 1:
        return wish
    flag = torch.tensor(float(wish), device=device)
    with _all_there():
        distributed.all_reduce(flag, op=distributed.ReduceOp.MAX)
    return bool(flag)


def wait() -> None:
    """Go on when all processes have come here."""
    if count() > 1:
        with _all_there():
            distributed.barrier()


@contextmanager
def first_goes_first() -> Iterator[None]:
    """The first process does what follows alone; then the others do, and find it done."""
    if not is_first():
        wait()
    yield
    if is_first():
        wait()


@contextmanager
def _all_there() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        raise Lost(f"another of the {count()} processes has ended ({error})") from error
