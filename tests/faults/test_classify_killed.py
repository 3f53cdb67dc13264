"""The archive job with SIGKILL at random moments: what is published in the end is what it would have been."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil
import pytest

from tests.jobs import PROJECT, Running, Work, check, cog_work, in_group, parts, published, pyramid_work

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]

GONE = 6
"""Exit status of a job that lost its cluster."""


@dataclass(frozen=True)
class Undisturbed:
    """A work, what it publishes, and the seconds from its first part to its end."""

    work: Work
    whole: Mapping[str, bytes]
    seconds: float


@pytest.fixture(scope="module", params=["pyramids", "cogs"])
def undisturbed(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Undisturbed:
    folder = tmp_path_factory.mktemp("killed")
    work = (pyramid_work if request.param == "pyramids" else cog_work)(folder)
    running = work.start(folder / "whole")
    running.until_parts(1)
    begun = time.monotonic()
    assert running.ended() == 0, running.said()
    whole = parts(folder / "whole")
    check(work, folder / "whole", whole)
    assert len(published(folder / "whole")) > 100
    return Undisturbed(work, whole, time.monotonic() - begun)


def moments(rounds: int, seed: int, seconds: float) -> list[float]:
    """Seconds after the first part, anywhere in the job."""
    return [float(share) * seconds for share in np.random.default_rng(seed).uniform(0, 0.9, rounds)]


def wait_for(running: Running, after: float) -> None:
    """That long after its first part, or until it ends."""
    running.until_parts(1)
    try:
        running.process.wait(after)
    except subprocess.TimeoutExpired:
        return


def sealed(out: Path) -> dict[str, int]:
    """When each part was written."""
    return {path.name: path.stat().st_mtime_ns for path in published(out)}


@pytest.mark.parametrize("victim", ["client", "everything"])
def test_a_killed_job_leaves_whole_parts_and_goes_on_from_them(
    undisturbed: Undisturbed, tmp_path: Path, victim: str
) -> None:
    work, seed = undisturbed.work, {"client": 1, "everything": 2}[victim]
    for number, moment in enumerate(moments(3, seed, undisturbed.seconds)):
        out = tmp_path / str(number)
        running = work.start(out)
        wait_for(running, moment)
        if victim == "client":
            running.process.kill()
            running.process.wait()
            running.gone()  # workers do not live on without it
        else:
            running.kill()
        before = sealed(out)
        assert before
        assert {name: content for name, content in parts(out).items() if name.startswith("pred")}.items() <= (
            undisturbed.whole.items()
        )
        assert work.run(out) == 0
        check(work, out, undisturbed.whole)
        assert before.items() <= sealed(out).items()  # nothing was done twice


def test_a_killed_worker_costs_the_job_nothing(undisturbed: Undisturbed, tmp_path: Path) -> None:
    chance = np.random.default_rng(3)
    for number, moment in enumerate(moments(3, 3, undisturbed.seconds)):
        running = undisturbed.work.start(tmp_path / str(number))
        wait_for(running, moment)
        workers = running.workers()
        if workers:
            workers[int(chance.integers(len(workers)))].kill()
        assert running.ended() == 0, running.said()
        check(undisturbed.work, tmp_path / str(number), undisturbed.whole)


def test_workers_killed_again_and_again_cost_the_job_nothing(
    undisturbed: Undisturbed, tmp_path: Path
) -> None:
    """Ten of them, far more than there are tries of a partition."""
    chance = np.random.default_rng(4)
    running = undisturbed.work.start(tmp_path / "out")
    running.until_parts(1)
    for _ in range(10):
        time.sleep(float(chance.uniform(0.05, 0.3)) * undisturbed.seconds)
        if running.process.poll() is None and (workers := running.workers()):
            workers[int(chance.integers(len(workers)))].kill()
    assert running.ended() == 0, running.said()
    check(undisturbed.work, tmp_path / "out", undisturbed.whole)


class Cluster:
    """A scheduler and two workers, started by somebody else than the job."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.address = f"tcp://127.0.0.1:{self.port}"
        self.processes: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, name: str) -> None:
        """The `scheduler`, or the `workers` with their nannies."""
        given = {
            "scheduler": ["scheduler", "--host", "127.0.0.1", "--port", str(self.port), "--no-dashboard"],
            "workers": ["worker", self.address, "--nworkers", "2", "--nthreads", "1", "--no-dashboard"],
        }[name]
        given += ["--local-directory", str(self.folder)] if name == "workers" else []
        with (self.folder / f"{name}.log").open("ab") as log:
            self.processes[name] = subprocess.Popen(
                [sys.executable, "-m", "dask", *given],
                start_new_session=True,
                stdout=log,
                stderr=log,
                cwd=PROJECT,
                env={**os.environ, "PYTHONPATH": str(PROJECT)},
            )

    def one_worker(self, chance: np.random.Generator) -> psutil.Process:
        nanny = psutil.Process(self.processes["workers"].pid)
        found = [each for each in nanny.children(recursive=True) if "spawn_main" in " ".join(each.cmdline())]
        return found[int(chance.integers(len(found)))]

    def kill(self, name: str) -> None:
        if name in self.processes:
            process = self.processes.pop(name)
            for each in in_group(process.pid):
                each.send_signal(signal.SIGKILL)
            process.wait()


@contextmanager
def started(folder: Path) -> Iterator[Cluster]:
    with ExitStack() as stack:
        cluster = Cluster(folder)
        for name in ("scheduler", "workers"):
            stack.callback(cluster.kill, name)
            cluster.start(name)
        yield cluster


@pytest.mark.parametrize("undisturbed", ["pyramids"], indirect=True)
@pytest.mark.parametrize("victim", ["worker", "scheduler", "client"])
def test_on_a_cluster_of_others_whoever_is_killed_the_bytes_are_the_same(
    undisturbed: Undisturbed, tmp_path: Path, victim: str
) -> None:
    work, seed = undisturbed.work, {"worker": 5, "scheduler": 6, "client": 7}[victim]
    chance = np.random.default_rng(seed)
    with started(tmp_path) as cluster:
        for number, moment in enumerate(moments(3, seed, undisturbed.seconds)):
            out = tmp_path / f"out{number}"
            running = work.start(out, workers=None, scheduler=cluster.address)
            wait_for(running, moment)
            if victim == "worker":
                cluster.one_worker(chance).kill()
            elif victim == "client":
                running.kill()
            else:
                cluster.kill("scheduler")
                cluster.kill("workers")  # they end without it, and whoever keeps it alive starts them again
                cluster.start("scheduler")
                cluster.start("workers")
            if victim == "client":
                assert work.run(out, workers=None, scheduler=cluster.address) == 0
            else:
                assert running.ended() == 0, running.said()
            check(work, out, undisturbed.whole)


@pytest.mark.parametrize("undisturbed", ["pyramids"], indirect=True)
def test_a_scheduler_that_stays_away_ends_the_job_in_one_sentence(
    undisturbed: Undisturbed, tmp_path: Path
) -> None:
    work, out = undisturbed.work, tmp_path / "out"
    with started(tmp_path) as cluster:
        running = work.start(out, workers=None, scheduler=cluster.address)
        wait_for(running, undisturbed.seconds / 4)
        cluster.kill("scheduler")
        assert running.ended() == GONE, running.said()
        assert cluster.address in running.last_word()
        assert "run the same command" in running.last_word()
    before = sealed(out)
    assert work.run(out) == 0
    check(work, out, undisturbed.whole)
    assert before.items() <= sealed(out).items()


def test_two_jobs_at_once_on_one_folder_publish_every_row_once(
    undisturbed: Undisturbed, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    jobs = [undisturbed.work.start(out) for _ in range(2)]
    codes = [job.ended() for job in jobs]
    assert codes == [0, 0], jobs[0].said()
    check(undisturbed.work, out, undisturbed.whole)


def test_two_jobs_at_once_of_which_one_is_killed(undisturbed: Undisturbed, tmp_path: Path) -> None:
    for number, moment in enumerate(moments(2, 8, undisturbed.seconds)):
        out = tmp_path / str(number)
        first, second = (undisturbed.work.start(out) for _ in range(2))
        wait_for(first, moment)
        first.kill()
        assert second.ended() == 0, second.said()
        check(undisturbed.work, out, undisturbed.whole)


def test_two_jobs_at_once_with_other_settings_keep_to_themselves(
    undisturbed: Undisturbed, tmp_path: Path
) -> None:
    out, other = tmp_path / "out", {"runtime": "eager"}
    jobs = [undisturbed.work.start(out), undisturbed.work.start(out, **other)]
    assert [job.ended() for job in jobs] == [0, 0], jobs[0].said()
    assert undisturbed.work.run(tmp_path / "alone", **other) == 0
    assert parts(out) == undisturbed.whole | parts(tmp_path / "alone")
