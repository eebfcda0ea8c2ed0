"""A long task that is asked to stop saves what it has, and goes on when it is started again."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager

# Exit code of a command that stopped because it was asked to; as a shell's after Ctrl-C.
EXIT_STOPPED = 130


class Interrupted(Exception):
    """The task was asked to stop; its state is saved and the same command goes on."""


@contextmanager
def stop_requests() -> Iterator[list[int]]:
    """A list that becomes non-empty when SIGTERM or SIGINT arrives.

    SIGTERM is what Slurm sends before it ends a job, by scancel, preemption or a time limit.
    """
    received: list[int] = []
    signals = (signal.SIGTERM, signal.SIGINT)
    before = {s: signal.signal(s, lambda number, _: received.append(number)) for s in signals}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
