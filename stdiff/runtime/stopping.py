"""Stop requests: a long task saves its state on a signal and resumes when run again."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager

# Exit code of a command stopped by a signal; a shell's after Ctrl-C.
EXIT_STOPPED = 130


class Interrupted(Exception):
    """The task stopped on request; its state is saved and the same command resumes it."""


@contextmanager
def sigterm_as_ctrl_c() -> Iterator[None]:
    """SIGTERM raises KeyboardInterrupt, so that nothing unfinished is left behind."""
    process = os.getpid()

    def stop(number: int, _: object) -> None:
        if os.getpid() != process:  # a forked worker, which has nothing to clean up
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        # Often sent twice, to a process and to its group; cleaning up is not to be disturbed.
        signal.signal(number, signal.SIG_IGN)
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def stop_requests() -> Iterator[list[int]]:
    """A list that becomes non-empty when SIGTERM or SIGINT arrives.

    Slurm sends SIGTERM before it ends a job (scancel, preemption, time limit).
    """
    received: list[int] = []
    signals = (signal.SIGTERM, signal.SIGINT)
    before = {s: signal.signal(s, lambda number, _: received.append(number)) for s in signals}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
