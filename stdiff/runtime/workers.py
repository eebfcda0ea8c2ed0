"""Worker processes with one BLAS thread each, so that they do not compete for cores.

Not joblib: its Parallel takes no setup function for each process.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from typing import Any, TypeVar

from threadpoolctl import threadpool_limits

from stdiff.runtime.errors import InputError

Item = TypeVar("Item")
Result = TypeVar("Result")


def mapped(
    work: Callable[[Item], Result], items: Iterable[Item], processes: int, *, chunk: int = 1
) -> Iterator[Result]:
    """``map(work, items)`` in worker processes, in the order of the items.

    Args:
        work: a module-level function.
        items: its arguments.
        processes: 1 works in this process.
        chunk: items sent to a process at once.
    """
    with workers(processes) as map_items:
        yield from map_items(work, items, chunksize=chunk)


@contextmanager
def workers(
    processes: int, setup: Callable[..., None] | None = None, *setup_arguments: Any
) -> Iterator[Callable[..., Iterator[Any]]]:
    """Processes for several rounds of work: yields an ordered ``map(work, items, chunksize=1)``.

    Args:
        processes: 1 works in this process.
        setup: called once in each process, e.g. with arrays that all items need.
        *setup_arguments: of ``setup``.

    Raises:
        InputError: a process was killed, as the system does when memory is short.
    """
    if processes <= 1:
        if setup:
            setup(*setup_arguments)
        yield _map_here
        return
    with ProcessPoolExecutor(
        processes, initializer=_alone_on_a_core, initargs=(setup, setup_arguments)
    ) as pool:
        try:
            yield pool.map
        except BrokenProcessPool as error:
            raise InputError(
                f"one of the {processes} worker processes was killed, probably for lack of memory; "
                "run it again with fewer --processes"
            ) from error
        except BaseException:
            # What has not begun would be waited for, also after a stop signal.
            pool.shutdown(cancel_futures=True)
            raise


def _map_here(
    work: Callable[[Item], Result], items: Iterable[Item], chunksize: int = 1
) -> Iterator[Result]:
    del chunksize  # nothing is sent
    return map(work, items)


def _alone_on_a_core(setup: Callable[..., None] | None, arguments: tuple[Any, ...]) -> None:
    """Limit BLAS to one thread, leave signals to the parent process, then run the setup."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    threadpool_limits(1)
    if setup:
        setup(*arguments)


def _end_with_parent() -> None:
    """End this process when its parent was killed: it would wait for work for ever."""
    parent = multiprocessing.parent_process()
    if parent:
        parent.join()
        os._exit(1)
