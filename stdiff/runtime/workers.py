"""Worker processes with one BLAS thread each, so that they do not compete for cores.

Not joblib: its Parallel takes no setup function for each process.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from typing import Any, TypeVar

from threadpoolctl import threadpool_limits

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
    """
    if processes <= 1:
        if setup:
            setup(*setup_arguments)
        yield _map_here
        return
    with ProcessPoolExecutor(
        processes, initializer=_alone_on_a_core, initargs=(setup, setup_arguments)
    ) as pool:
        yield pool.map


def _map_here(
    work: Callable[[Item], Result], items: Iterable[Item], chunksize: int = 1
) -> Iterator[Result]:
    del chunksize  # nothing is sent
    return map(work, items)


def _alone_on_a_core(setup: Callable[..., None] | None, arguments: tuple[Any, ...]) -> None:
    """Limit BLAS to one thread, then run the setup."""
    threadpool_limits(1)
    if setup:
        setup(*arguments)
