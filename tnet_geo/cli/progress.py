"""How far a command has come, on stderr: a bar on a terminal, elsewhere a line an epoch or a minute."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

if TYPE_CHECKING:
    from tnet_geo.learning.checkpoints import EpochRow

__all__ = ["progress"]

_LINE_EVERY_S = 60.0


class _Lines:
    """For logs: one line an epoch, one line a minute."""

    def __init__(self, what: str, console: Console) -> None:
        self._what, self._console = what, console
        self._last = time.monotonic()

    def __call__(self, done: int, total: int) -> None:
        now = time.monotonic()
        if now - self._last >= _LINE_EVERY_S:
            self._last = now
            self.say(f"{done} of {total} {self._what}")

    def begin(self, stage: str, epochs: int, steps: int) -> None:
        self.say(f"{stage}: up to {epochs} epochs of {steps} steps")

    def step(self) -> None:
        """Steps are too many for a log."""

    def epoch(self, row: EpochRow) -> None:
        self.say(row.line())

    def say(self, line: str) -> None:
        """A line of its own."""
        self._console.print(line, highlight=False, markup=False, soft_wrap=True)


class _Bar:
    """For people: one bar, and the lines of finished epochs above it."""

    def __init__(self, what: str, bar: Progress) -> None:
        self._what, self._bar = what, bar
        self._task: TaskID | None = None

    def __call__(self, done: int, total: int) -> None:
        if self._task is None:
            self._task = self._bar.add_task(self._what, total=total)
        self._bar.update(self._task, completed=done, total=total)

    def begin(self, stage: str, epochs: int, steps: int) -> None:
        if self._task is not None:
            self._bar.remove_task(self._task)
        self._task = self._bar.add_task(f"{stage} 0/{epochs}", total=steps)

    def step(self) -> None:
        if self._task is not None:
            self._bar.advance(self._task)

    def epoch(self, row: EpochRow) -> None:
        self.say(row.line())
        if self._task is not None:
            self._bar.reset(self._task, description=f"{row.stage} {row.epoch}/{row.epochs}")

    def say(self, line: str) -> None:
        """A line above the bar."""
        self._bar.console.print(line, highlight=False, markup=False)


@contextmanager
def progress(what: str) -> Iterator[_Lines | _Bar]:
    """What a command calls: with `(done, total)` of items, or at each stage, step and epoch of training."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield _Lines(what, console)
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        yield _Bar(what, bar)
