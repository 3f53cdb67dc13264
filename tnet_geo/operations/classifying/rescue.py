"""Partitions that broke their task: which site did it, so that it costs only itself.

What raises is found by asking for one site at a time. What brings a process down natively (a decoder that
crashes, a library that aborts) is asked in a process of its own, which says what it begins and what it has
ended: after its death the sites under way are asked one by one, and the one it dies of again is set aside.
"""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import BinaryIO

import torch

from tnet_geo.errors import ClusterLost, PlaceUnusable, Stopped
from tnet_geo.imagery import Site
from tnet_geo.inference import Classifier
from tnet_geo.operations.classifying.partitions import Partition
from tnet_geo.operations.classifying.tasks import (
    Job,
    Outcome,
    WalkedArchive,
    loaded,
    outcomes_of,
    publish,
    site_of,
)
from tnet_geo.operations.forecasting.forecast import Cost
from tnet_geo.trail import Failure

__all__ = ["main", "rescue_partition"]

NO_SITE_IS_TO_BLAME = (MemoryError, torch.OutOfMemoryError, torch.AcceleratorError, Stopped, PlaceUnusable)
FEW = 8
"""Sites that are asked one by one from the start: together they gain nothing."""
KILLS = 2
"""Times that a site alone is killed by SIGKILL, which may come from outside, before it is blamed."""


def rescue_partition(job: Job, part: Partition, seconds: float | None, *, isolated: bool) -> Cost:
    """In a worker: answer what can be answered of a partition that broke its task, and publish.

    isolated: the task took its process with it, so that another process has to try.

    Raises:
        PlaceLost: archive or results do not answer, and did not come back.
        Exception: what no site is to blame for.
    """
    classifier, archive = loaded(job)
    walked = WalkedArchive(archive)

    def one_by_one(sites: Sequence[Site], left: float | None) -> Iterator[Outcome]:
        for site in sites:
            yield _alone(walked, classifier, site, _share(left, sites))

    def elsewhere(sites: Sequence[Site], left: float | None) -> Iterator[Outcome]:
        return _Suspects(job, left).outcomes(sites)

    ask = elsewhere if isolated else one_by_one
    outcomes = outcomes_of(job, part.sites, ask, seconds=seconds, twice=False)
    return publish(job, part, outcomes, walked.lap())


def _alone(walked: WalkedArchive, classifier: Classifier, site: Site, seconds: float | None) -> Outcome:
    try:
        (outcome,) = walked.outcomes(classifier, [site], seconds)
    except NO_SITE_IS_TO_BLAME:
        raise
    except Exception as error:  # noqa: BLE001 - whatever a site does, the others go on
        return _broke(site, f"{type(error).__name__}: {error}")
    return outcome


def _share(seconds: float | None, sites: Sequence[Site]) -> float | None:
    return None if seconds is None else seconds / len(sites)


def _broke(site: Site, cause: str) -> Failure:
    return Failure(site.site_id, f"Site {site.site_id} broke its task ({' '.join(cause.split())[:200]}).")


@dataclass(frozen=True, slots=True)
class _Request:
    """What the other process is to do."""

    job: Job
    sites: tuple[Site, ...]
    alone: bool
    seconds: float | None


class _Suspects:
    """Sites of which some bring down the process that walks them."""

    def __init__(self, job: Job, seconds: float | None) -> None:
        self._job, self._seconds = job, seconds
        self._killed: Counter[str] = Counter()

    def outcomes(self, sites: Sequence[Site]) -> Iterator[Outcome]:
        """One outcome per site, in any order."""
        waiting = {site.site_id: site for site in sites}
        doubted = list(waiting) if len(waiting) <= FEW else []
        while waiting:
            doubted = [name for name in doubted if name in waiting]
            some = [waiting[name] for name in doubted or waiting]
            begun: list[str] = []
            request = _Request(self._job, tuple(some), bool(doubted), self._seconds)
            with _process(request) as process:
                for record in _records(process):
                    if isinstance(record, str):
                        begun.append(record)
                    else:
                        waiting.pop(site_of(record), None)
                        yield record
                code = process.wait()
            if code == 0:
                continue
            under_way = [name for name in begun if name in waiting]
            if not under_way:
                raise ClusterLost("A worker", f"a process of its own ends with {_ending(code)} by itself")
            if doubted and self._guilty(under_way[-1], code):
                yield _broke(waiting.pop(under_way[-1]), f"its process ended with {_ending(code)}")
            doubted = doubted or under_way

    def _guilty(self, name: str, code: int) -> bool:
        self._killed[name] += 1
        return code != -signal.SIGKILL or self._killed[name] >= KILLS


def _ending(code: int) -> str:
    return signal.Signals(-code).name if code < 0 else f"status {code}"


def _process(request: _Request) -> subprocess.Popen[bytes]:
    """A process that has its request, and that ends when this one does: its input ends with it."""
    paths = [os.environ.get("PYTHONPATH", ""), *sys.path]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in paths if path)}
    process = subprocess.Popen(
        [sys.executable, "-m", "tnet_geo.operations.classifying.rescue"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=environment,
    )
    assert process.stdin is not None
    try:
        pickle.dump(request, process.stdin)
        process.stdin.flush()
    except BrokenPipeError:
        pass  # its end says why
    return process


def _records(process: subprocess.Popen[bytes]) -> Iterator[str | Outcome]:
    """What it says until it ends: ids of sites that it begins, and outcomes."""
    assert process.stdout is not None
    while True:
        try:
            record = pickle.load(process.stdout)
        except (EOFError, pickle.UnpicklingError):  # the latter: it died in the middle of a word
            return
        if isinstance(record, Exception):
            raise record
        yield record


def main() -> None:
    """The other process: walk the sites of the request on stdin, and say on stdout how it goes."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # it ends with the worker, which finishes what is in hand
    words = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what libraries print is no word of ours
    request = pickle.load(sys.stdin.buffer)
    threading.Thread(target=_end_with, args=(sys.stdin.buffer,), daemon=True).start()

    lock = threading.Lock()

    def say(record: object) -> None:
        with lock:
            pickle.dump(record, words)
            words.flush()

    try:
        _walk(request, say)
    except NO_SITE_IS_TO_BLAME as error:
        say(error)
    words.close()
    os._exit(0)  # without the ends of libraries, which nobody waits for


def _walk(request: _Request, say: Callable[[object], None]) -> None:
    classifier, archive = loaded(request.job)
    walked = WalkedArchive(archive)
    if not request.alone:
        for outcome in walked.outcomes(classifier, request.sites, request.seconds, begun=say):
            say(outcome)
        return
    for site in request.sites:
        say(site.site_id)
        say(_alone(walked, classifier, site, _share(request.seconds, request.sites)))


def _end_with(parent: BinaryIO) -> None:
    """Nothing more comes; what ends is the process that asked."""
    parent.read()
    os._exit(1)


if __name__ == "__main__":
    main()
