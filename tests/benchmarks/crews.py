"""Rivals in processes of their own, that take turns: what each does, and how long a turn takes."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch

__all__ = ["Crew", "Turn", "crews", "peak_mb"]

Work = Callable[[Any], int]
"""Does a turn of what it is asked for, and gives how many looks, or sites, that were."""


@dataclass(frozen=True)
class Turn:
    """What one turn was."""

    units: int
    """Looks, or sites, of all processes together."""
    seconds: float
    """From the start of all to the end of the last."""
    cpu_seconds: float
    """Of all threads of all processes."""

    @property
    def rate(self) -> float:
        """Units per second."""
        return self.units / self.seconds


class Crew:
    """Processes that do the same, at the same time, when it is their turn; one thread each for the model."""

    def __init__(self, make: Callable[..., Work], *arguments: Any, processes: int = 1) -> None:
        """`make` is called with `arguments` in every process, and gives what a turn does."""
        context = get_context("spawn")
        self._pipes: list[Connection] = []
        self._processes = []
        for _ in range(processes):
            ours, theirs = context.Pipe()
            process = context.Process(target=_serve, args=(make, arguments, theirs), daemon=True)
            process.start()
            theirs.close()
            self._pipes.append(ours)
            self._processes.append(process)
        self._gather()

    def turn(self, what: Any = None) -> Turn:
        """Let all of them work once."""
        begun = time.perf_counter()
        for pipe in self._pipes:
            pipe.send((what,))
        found = self._gather()
        seconds = time.perf_counter() - begun
        return Turn(sum(units for units, _, _ in found), seconds, sum(cpu for _, cpu, _ in found))

    def peak_mb(self, what: Any = None) -> float:
        """The highest resident memory that one of them ever had, after one more turn."""
        for pipe in self._pipes:
            pipe.send((what,))
        return max(peak for _, _, peak in self._gather())

    def dismiss(self) -> None:
        """End the processes."""
        for pipe, process in zip(self._pipes, self._processes, strict=True):
            with suppress(BrokenPipeError):  # it has died, and that is told elsewhere
                pipe.send(None)
            process.join()

    def _gather(self) -> list[tuple[int, float, float]]:
        found = []
        for pipe, process in zip(self._pipes, self._processes, strict=True):
            try:
                found.append(pipe.recv())
            except EOFError:
                process.join()
                raise RuntimeError(f"a process has died with exit status {process.exitcode}") from None
        return found


@contextmanager
def crews() -> Iterator[list[Crew]]:
    """A list of crews, all of which are dismissed at the end."""
    at_work: list[Crew] = []
    try:
        yield at_work
    finally:
        for crew in at_work:
            crew.dismiss()


def _serve(make: Callable[..., Work], arguments: Sequence[Any], pipe: Connection) -> None:
    """In a process of its own: a turn for every message, until there is None."""
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    work = make(*arguments)
    pipe.send((0, 0.0, 0.0))
    while (message := pipe.recv()) is not None:
        begun = time.process_time()
        units = work(*message)
        pipe.send((units, time.process_time() - begun, peak_mb()))


def peak_mb() -> float:
    """The highest resident memory that this process ever had, in MB."""
    return int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) / 1024
