"""SIGTERM to a job: what is in hand is finished, then the process ends; a second one ends it at once."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

__all__ = ["Stop", "held_sigterm"]

TERMINATED = 128 + signal.SIGTERM


@dataclass
class Stop:
    """Whether a job was asked to come to an end."""

    asked: bool = False


@contextmanager
def held_sigterm() -> Iterator[Stop]:
    """As long as the block lasts the first SIGTERM is only noted; the block looks at it and ends by itself.

    Only the main thread can hold signals back; in another one nothing changes.

    Raises:
        SystemExit: with 143, at the end of the block if one SIGTERM came, at once if two did.
    """
    stop = Stop()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return

    def noted(signum: int, _: FrameType | None) -> None:
        if stop.asked:
            raise SystemExit(128 + signum)
        stop.asked = True

    before = signal.signal(signal.SIGTERM, noted)
    try:
        yield stop
    finally:
        signal.signal(signal.SIGTERM, before)
    if stop.asked:
        raise SystemExit(TERMINATED)
