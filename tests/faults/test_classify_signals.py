"""SIGTERM, once and twice, to the command and to all of its processes: what is in hand is published."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.jobs import Running, Work, check, cog_work, haunted, parts, published, pyramid_work

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

LARGE = {"partition": 256}
"""Partitions that take a while, so that some are in hand whenever a signal comes."""


@dataclass(frozen=True)
class Undisturbed:
    work: Work
    whole: Mapping[str, bytes]
    parts: int


@pytest.fixture(scope="module", params=["pyramids", "cogs"])
def undisturbed(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Undisturbed:
    folder = tmp_path_factory.mktemp("signals")
    work = (pyramid_work if request.param == "pyramids" else cog_work)(folder, 20, 60)
    assert work.run(folder / "whole", **LARGE) == 0
    return Undisturbed(work, parts(folder / "whole"), len(published(folder / "whole")))


def to_command(running: Running, number: int) -> None:
    os.kill(running.process.pid, number)


def to_all(running: Running, number: int) -> None:
    """As a scheduler of jobs or a terminal does."""
    os.killpg(running.process.pid, number)


@pytest.mark.parametrize("send", [to_command, to_all])
def test_sigterm_publishes_what_is_in_hand_and_the_same_command_goes_on(
    undisturbed: Undisturbed, tmp_path: Path, send: Callable[[Running, int], None]
) -> None:
    out, reached = tmp_path / "out", tmp_path / "reached"
    # From the middle of the sites on a partition takes seconds, so that one is in hand for certain.
    slow = f"open({str(reached)!r}, 'w').close(); time.sleep(0.02)"
    running = undisturbed.work.start(out, haunted(tmp_path / "haunted", "s01", slow), **LARGE)
    running.until(reached.exists)
    before = len(published(out))
    send(running, signal.SIGTERM)
    assert running.ended() == 143, running.said()
    assert before < len(published(out)) < undisturbed.parts
    assert parts(out).items() <= undisturbed.whole.items()
    assert "stopped by SIGTERM" in running.last_word()
    assert undisturbed.work.run(out, **LARGE) == 0
    check(undisturbed.work, out, undisturbed.whole)


@pytest.mark.parametrize("send", [to_command, to_all])
def test_a_second_sigterm_ends_the_job_at_once(
    undisturbed: Undisturbed, tmp_path: Path, send: Callable[[Running, int], None]
) -> None:
    out, reached = tmp_path / "out", tmp_path / "reached"
    # From the middle of the sites on every look takes as long as anybody would wait.
    wait = f"open({str(reached)!r}, 'w').close(); time.sleep(600)"
    running = undisturbed.work.start(out, haunted(tmp_path / "haunted", "s01", wait), **LARGE)
    running.until_parts(3)
    running.until(reached.exists)
    send(running, signal.SIGTERM)
    running.until(lambda: len(running.workers()) == 2, 10)  # the first one lets them go on
    with pytest.raises(subprocess.TimeoutExpired):
        running.process.wait(5)
    send(running, signal.SIGTERM)
    assert running.ended(60) == 143, running.said()
    assert parts(out).items() <= undisturbed.whole.items()
    assert undisturbed.work.run(out, **LARGE) == 0
    check(undisturbed.work, out, undisturbed.whole)


@pytest.mark.parametrize("send", [to_command, to_all])
def test_sigint_ends_the_job_and_leaves_whole_parts(
    undisturbed: Undisturbed, tmp_path: Path, send: Callable[[Running, int], None]
) -> None:
    out = tmp_path / "out"
    running = undisturbed.work.start(out, **LARGE)
    running.until_parts(2)
    send(running, signal.SIGINT)
    assert running.ended() == 130, running.said()
    assert parts(out).items() <= undisturbed.whole.items()
    assert undisturbed.work.run(out, **LARGE) == 0
    check(undisturbed.work, out, undisturbed.whole)
