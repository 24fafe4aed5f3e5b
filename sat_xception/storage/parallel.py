"""Parallel transfers, in threads."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import TypeVar

__all__ = ["in_parallel"]

T = TypeVar("T")
R = TypeVar("R")
# Google's client keeps 10 connections; more workers than those would throw some away.
_WORKERS = 8


def in_parallel(function: Callable[[T], R], items: Iterable[T]) -> Iterator[R]:
    """Yield a function's results for items in order of completion, with parallel calls; the first error ends all.

    Only a few items are taken ahead of the work, so a million of them need no memory.
    """
    pool = ThreadPoolExecutor(_WORKERS)
    running: set[Future[R]] = set()
    try:
        for item in items:
            running.add(pool.submit(function, item))
            if len(running) >= 2 * _WORKERS:
                done, running = wait(running, return_when=FIRST_COMPLETED)
                yield from (future.result() for future in done)
        while running:
            done, running = wait(running, return_when=FIRST_COMPLETED)
            yield from (future.result() for future in done)
    finally:
        pool.shutdown(cancel_futures=True)
