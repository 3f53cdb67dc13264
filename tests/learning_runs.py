"""Runs of training in tests: started, interrupted, compared."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tests.archives import TinyArchive
from tnet_geo.learning.checkpoints import EpochRow
from tnet_geo.learning.settings import RunSettings
from tnet_geo.learning.training import Silent, Training


class Interrupted(Exception):
    """Stands for whatever ends a process in the middle of an epoch."""


class StopAt(Silent):
    """Ends the run after so many steps."""

    def __init__(self, steps: int) -> None:
        self._left = steps

    def step(self) -> None:
        self._left -= 1
        if self._left < 0:
            raise Interrupted


def run(tiny: TinyArchive, settings: RunSettings, progress: Silent | None = None) -> Sequence[EpochRow]:
    return Training(settings, tiny.manifest, tiny.archive, progress).run()


def figures(rows: Sequence[EpochRow]) -> list[tuple[Any, ...]]:
    """Everything but the time."""
    return [(row.stage, row.epoch, row.train_loss, row.accuracy, row.loss, row.tiles) for row in rows]
