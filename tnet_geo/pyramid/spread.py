"""Work on many things in a few threads, in bounded memory."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future
from typing import TypeVar

__all__ = ["spread", "usable_cores"]

AHEAD = 8
"""Things that wait in line: enough to keep all threads busy, few enough to need no memory."""

T = TypeVar("T")
R = TypeVar("R")


def spread(pool: Executor, work: Callable[[T], R], things: Iterable[T], *, threads: int) -> Iterator[R]:
    """The results of `work` on all things, in their order; never many more under way than `threads`."""
    waiting: deque[Future[R]] = deque()
    try:
        for thing in things:
            waiting.append(pool.submit(work, thing))
            if len(waiting) > threads + AHEAD:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        for future in waiting:
            future.cancel()


def usable_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0))
