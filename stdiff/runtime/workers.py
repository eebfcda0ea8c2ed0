"""Worker processes that share the cores instead of fighting for them."""

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
        work: a function of a module, not a closure.
        items: what to work on.
        processes: 1 works in this process.
        chunk: items sent at once.
    """
    with workers(processes) as map_items:
        yield from map_items(work, items, chunksize=chunk)


@contextmanager
def workers(
    processes: int, setup: Callable[..., None] | None = None, *setup_arguments: Any
) -> Iterator[Callable[..., Iterator[Any]]]:
    """Processes for several rounds of work: gives a ``map(work, items, chunksize=1)``, in order.

    Args:
        processes: 1 works in this process.
        setup: called once in each process before it works, e.g. with arrays that all items need.
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
    """Threads of BLAS beside other workers would only wait for each other."""
    threadpool_limits(1)
    if setup:
        setup(*arguments)
