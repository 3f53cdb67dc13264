"""The stream of walks: reads are issued the moment children are chosen, whatever is read fills the next pass.

Nothing here decides where to look, or computes: it keeps the reader and the device busy, and what waits
between them small.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import partial
from heapq import heappop, heappush
from queue import Empty, SimpleQueue
from typing import Generic, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tnet_geo.errors import SetAside
from tnet_geo.grid import Tile
from tnet_geo.inference.passes import LookRow, Pass, Passes
from tnet_geo.inference.walks import Place, SiteTask, Walk
from tnet_geo.pyramid.tiles import TileBatch
from tnet_geo.trail import Failure

__all__ = ["Flow", "Limits"]

Result = TypeVar("Result")

PATIENCE_S = 0.05
"""About what an object store takes to answer."""


@dataclass(frozen=True)
class Limits:
    """What bounds memory, however long the archive is."""

    in_flight: int
    """Walks that have begun and not ended."""
    lines: int
    """Walks that have begun and were not handed on, those that wait for their turn among them."""
    tiles: int
    """Being read, or waiting to be looked at."""
    portion: int
    """Tiles of one walk that are read together."""


@dataclass(eq=False)
class _Line(Generic[Result]):
    """One site on its way, with what is known of the tiles that its walk wants now."""

    walk: Walk
    number: int
    """Of the task."""
    outcome: Result | Failure | None = None
    parents: Tensor | None = None
    places: list[Place] = field(default_factory=list)
    ends: bool = False
    features: list[Tensor] = field(default_factory=list)
    child_logits: list[Tensor] = field(default_factory=list)
    candidates: list[NDArray[np.bool_]] = field(default_factory=list)
    missing: int = 0

    def begin_step(self, width: int | None) -> int:
        """Make room for the looks that the walk wants, and say how many.

        width: of the features of parents; None if they do not matter.
        """
        walk, count = self.walk, len(self.walk.wanted)
        self.parents = None if width is None else walk.parents(width)
        self.places = [walk.place(n) for n in range(count)]
        self.ends = walk.ends
        nothing = torch.empty(0)
        self.features, self.child_logits = [nothing] * count, [nothing] * count
        self.candidates = [np.zeros(9, dtype=np.bool_)] * count
        self.missing = count
        return count


@dataclass(frozen=True, slots=True)
class _Portion(Generic[Result]):
    """Some of the tiles that a walk wants, read together."""

    line: _Line[Result]
    start: int
    stop: int


@dataclass(frozen=True, slots=True)
class _Ready(Generic[Result]):
    """A tile that has been read."""

    line: _Line[Result]
    index: int
    row: LookRow


class Flow(Generic[Result]):
    """Walks tasks to their end.

    start: makes the walk of a task. after: called when a walk has taken in what it wanted: it may stop the
    walk. finish: what to make of a walk that wants nothing more. parents: width of the features that heads
    want of the look above, None if they want none. hurried: the sites that began first are looked at first,
    so that those are whole when time is up; otherwise the tiles that have waited longest, because walks
    that go on side by side leave fewer passes to be filled up at the end.
    """

    def __init__(
        self,
        tasks: Iterable[SiteTask | Failure],
        passes: Passes,
        limits: Limits,
        *,
        start: Callable[[SiteTask], Walk],
        after: Callable[[Walk], None],
        finish: Callable[[Walk], Result],
        parents: int | None,
        hurried: bool = False,
    ) -> None:
        self._tasks = iter(tasks)
        self._hurried = hurried
        self._passes, self._limits, self._parents = passes, limits, parents
        self._start, self._after, self._finish = start, after, finish
        self._lines: deque[_Line[Result] | Failure] = deque()
        self._waiting: deque[_Portion[Result]] = deque()
        self._arrived: SimpleQueue[tuple[_Portion[Result], Future[TileBatch]]] = SimpleQueue()
        self._ready: list[tuple[int, int, _Ready[Result]]] = []
        self._begun = self._turns = 0
        self._launched: deque[tuple[Pass, list[_Ready[Result]]]] = deque()
        self._under_way = self._reading = self._tiles = 0

    def results(self) -> Iterator[Result | Failure]:
        """What became of every task, in their order."""
        while True:
            self._admit()
            if not self._lines:
                return
            first = self._lines[0]
            outcome = first if isinstance(first, Failure) else first.outcome
            if outcome is None:
                self._advance()
                continue
            self._lines.popleft()
            yield outcome

    def _admit(self) -> None:
        """Begin walks as long as there is room for them."""
        limits = self._limits
        while (
            self._under_way < limits.in_flight
            and len(self._lines) < limits.lines
            and self._tiles < limits.tiles
            and (task := next(self._tasks, None)) is not None
        ):
            if isinstance(task, Failure):
                self._lines.append(task)
                continue
            self._begun += 1
            line: _Line[Result] = _Line(self._start(task), self._begun)
            self._lines.append(line)
            self._under_way += 1
            self._want(line)

    def _want(self, line: _Line[Result]) -> None:
        """Have the tiles read that a walk wants now."""
        count, portion = line.begin_step(self._parents), self._limits.portion
        for begin in range(0, count, portion):
            self._waiting.append(_Portion(line, begin, min(begin + portion, count)))
        self._issue()

    def _issue(self) -> None:
        """Begin reads as long as there is room for what they bring."""
        while self._waiting and (self._tiles < self._limits.tiles or not self._tiles):
            portion = self._waiting.popleft()
            line = portion.line
            if line.outcome is not None:
                continue
            wanted: list[Tile] = line.walk.wanted[portion.start : portion.stop]
            self._reading += 1
            self._tiles += len(wanted)
            read = line.walk.task.reader.submit(wanted)
            # Called by whichever thread has read; by this one, if all was at hand.
            read.add_done_callback(partial(self._arrive, portion))

    def _arrive(self, portion: _Portion[Result], read: Future[TileBatch]) -> None:
        self._arrived.put((portion, read))

    def _advance(self) -> None:
        """One step of whatever can be done now; waits only where nothing else can."""
        self._take_arrived()
        if len(self._ready) >= self._passes.batch_looks:
            self._launch()
        elif self._launched:
            self._collect()
        elif self._ready:
            self._fill_or_launch()
        elif self._reading:
            self._take(*self._arrived.get())
        else:
            self._issue()

    def _fill_or_launch(self) -> None:
        """Wait a little for more tiles, so that a pass is full; not for a read that hangs."""
        try:
            self._take(*self._arrived.get(timeout=PATIENCE_S if self._reading else 0))
        except Empty:
            self._launch()

    def _take_arrived(self) -> None:
        while True:
            try:
                self._take(*self._arrived.get_nowait())
            except Empty:
                return

    def _take(self, portion: _Portion[Result], read: Future[TileBatch]) -> None:
        """Tiles that have been read are ready to be looked at, unless their site has failed meanwhile."""
        line, count = portion.line, portion.stop - portion.start
        self._reading -= 1
        walk = line.walk
        try:
            batch = read.result()
            if (
                line.outcome is None
                and walk.task.examine is not None
                and not walk.looked
                and not portion.start
            ):
                walk.task.examine(batch)
        except SetAside as error:
            self._end(line, Failure(walk.task.site_id, str(error)))
        if line.outcome is not None:
            self._tiles -= count
            return
        for n in range(count):
            index = portion.start + n
            line.candidates[index] = walk.candidates(index, batch.validity[n])
            parent = None if line.parents is None else line.parents[index]
            row = LookRow(batch.pixels[n], batch.validity[n], line.places[index], parent, line.ends)
            self._turns += 1
            heappush(
                self._ready, (line.number if self._hurried else 0, self._turns, _Ready(line, index, row))
            )

    def _launch(self) -> None:
        """Look at the tiles whose turn it is; all of one type of pixels."""
        rows: list[_Ready[Result]] = []
        others: list[tuple[int, int, _Ready[Result]]] = []
        dtype = self._ready[0][2].row.pixels.dtype
        while self._ready and len(rows) < self._passes.batch_looks:
            first = heappop(self._ready)
            ready = first[2]
            if ready.line.outcome is not None:
                self._tiles -= 1
            elif ready.row.pixels.dtype != dtype:
                others.append(first)
            else:
                rows.append(ready)
        for other in others:
            heappush(self._ready, other)
        if rows:
            self._launched.append((self._passes.launch([ready.row for ready in rows]), rows))
        if len(self._launched) > self._passes.ahead:
            self._collect()

    def _collect(self) -> None:
        """Take in the oldest pass; walks that have all that they wanted go on."""
        launched, rows = self._launched.popleft()
        output = launched.result()
        self._tiles -= len(rows)
        for ready, features, child_logits in zip(rows, *(part.unbind() for part in output), strict=True):
            line = ready.line
            line.features[ready.index], line.child_logits[ready.index] = features, child_logits
            line.missing -= 1
            if not line.missing and line.outcome is None:
                self._observe(line)
        self._issue()

    def _observe(self, line: _Line[Result]) -> None:
        walk = line.walk
        walk.observe(torch.stack(line.features), torch.stack(line.child_logits), np.stack(line.candidates))
        if walk.wanted:
            self._after(walk)
        if walk.wanted:
            self._want(line)
        else:
            self._end(line, self._finish(walk))

    def _end(self, line: _Line[Result], outcome: Result | Failure) -> None:
        if line.outcome is None:
            line.outcome = outcome
            self._under_way -= 1
