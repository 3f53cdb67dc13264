"""Archives and results that vanish while a job runs, and disks that are full: nothing is set aside for it."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from tests.jobs import Work, check, cog_work, outcomes, parts, published, pyramid_work

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

LOST = 6
"""Exit status of a job that lost a place."""


@dataclass(frozen=True)
class Undisturbed:
    work: Work
    whole: Mapping[str, bytes]


@pytest.fixture(scope="module", params=["pyramids", "cogs"])
def undisturbed(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Undisturbed:
    """A work whose archive lies in a folder that can be moved elsewhere."""
    folder = tmp_path_factory.mktemp("places")
    work = (pyramid_work if request.param == "pyramids" else cog_work)(folder)
    assert work.run(folder / "whole") == 0
    return Undisturbed(work, parts(folder / "whole"))


class Mount:
    """A folder that is seen at another place, and can be lost there: really mounted where that is allowed."""

    def __init__(self, folder: Path, place: Path) -> None:
        self.folder, self.place = folder, place
        self.there = False
        self.back()

    def back(self) -> None:
        """Let it be seen, as at first."""
        self.place.mkdir(exist_ok=True)
        self.there = True
        if _mount("--bind", str(self.folder), str(self.place)):
            self.place.rmdir()
            self.place.symlink_to(self.folder)

    def lose(self) -> None:
        """What is left is an empty folder, as without its disk, or nothing."""
        self.there = False
        if self.place.is_symlink():
            self.place.unlink()
        else:
            subprocess.run(["umount", "-l", str(self.place)], check=True)

    def end(self) -> None:
        if self.there:  # nothing else knows: a folder bound to another one of its disk looks like any
            self.lose()


def _mount(*arguments: str) -> str:
    """Why nothing was mounted; empty if it was."""
    found = subprocess.run(["mount", *arguments], capture_output=True, check=False, text=True)
    return found.stderr.strip() or "it fails" if found.returncode else ""


@pytest.fixture
def mounted(tmp_path: Path) -> Iterator[Callable[[Path, str], Mount]]:
    """Mounts that end with the test."""
    with ExitStack() as stack:

        def mount(folder: Path, name: str) -> Mount:
            found = Mount(folder, tmp_path / name)
            stack.callback(found.end)
            return found

        yield mount


@pytest.fixture
def away(
    undisturbed: Undisturbed, tmp_path: Path, mounted: Callable[[Path, str], Mount]
) -> tuple[Work, Mount]:
    """The undisturbed work over a mount of its archive. What a part is named after is the same there."""
    mount = mounted(Path(undisturbed.work.archive), "mount")
    return replace(undisturbed.work, archive=str(mount.place)), mount


def test_an_archive_that_goes_away_and_comes_back_costs_nothing(
    undisturbed: Undisturbed, away: tuple[Work, Mount], tmp_path: Path
) -> None:
    work, mount = away
    running = work.start(tmp_path / "out")
    for count in (5, 40):
        running.until_parts(count)
        mount.lose()
        time.sleep(5)
        mount.back()
    assert running.ended() == 0, running.said()
    check(work, tmp_path / "out", undisturbed.whole)


def test_an_archive_that_stays_away_ends_the_job_in_one_sentence_and_sets_nothing_aside(
    undisturbed: Undisturbed, away: tuple[Work, Mount], tmp_path: Path
) -> None:
    work, mount = away
    out = tmp_path / "out"
    running = work.start(out)
    running.until_parts(5)
    mount.lose()
    assert running.ended() == LOST, running.said()
    assert str(mount.place) in running.last_word()
    assert "run the same command" in running.last_word()
    left = parts(out)
    assert not any(name.startswith("failed") for name in left)
    assert left.items() <= undisturbed.whole.items()
    mount.back()
    assert work.run(out) == 0
    check(work, out, undisturbed.whole)


def test_results_that_go_away_and_come_back_cost_nothing(
    undisturbed: Undisturbed, tmp_path: Path, mounted: Callable[[Path, str], Mount]
) -> None:
    (tmp_path / "disk").mkdir()
    mount = mounted(tmp_path / "disk", "mount")
    running = undisturbed.work.start(mount.place / "out")
    running.until_parts(5)
    mount.lose()
    time.sleep(5)
    left = parts(mount.place)
    mount.back()
    assert running.ended() == 0, running.said()
    assert not left  # nothing was written where the disk is not
    check(undisturbed.work, mount.place / "out", undisturbed.whole)


def test_results_that_stay_away_end_the_job_in_one_sentence(
    undisturbed: Undisturbed, tmp_path: Path, mounted: Callable[[Path, str], Mount]
) -> None:
    (tmp_path / "disk").mkdir()
    mount = mounted(tmp_path / "disk", "mount")
    out = mount.place / "out"
    running = undisturbed.work.start(out)
    running.until_parts(5)
    mount.lose()
    assert running.ended() == LOST
    assert not published(out)
    mount.back()
    assert str(out) in running.last_word()
    assert undisturbed.work.run(out) == 0
    check(undisturbed.work, out, undisturbed.whole)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    cause = _mount("-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder))
    if cause:
        pytest.skip(f"no small file system can be mounted here: {cause}")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def larger(disk: Path) -> None:
    subprocess.run(["mount", "-o", "remount,size=64m", str(disk)], check=True)


def fill(disk: Path) -> None:
    """Leave no byte of it."""
    with (disk / "filled").open("wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(b"0" * 4096)


def test_results_without_room_end_the_job_in_one_sentence_and_it_goes_on_when_there_is_some(
    undisturbed: Undisturbed, small_disk: Path
) -> None:
    out = small_disk / "out"
    running = undisturbed.work.start(out)
    running.until_parts(5)
    fill(small_disk)
    assert running.ended() == LOST, running.said()
    left = parts(out)
    assert left.items() <= undisturbed.whole.items()
    assert not set(outcomes(out).values()) - {1}
    larger(small_disk)
    assert str(out) in running.last_word()
    assert "No space left" in running.last_word()
    assert undisturbed.work.run(out) == 0
    check(undisturbed.work, out, undisturbed.whole)


def test_room_that_is_made_in_time_lets_the_job_go_on(undisturbed: Undisturbed, small_disk: Path) -> None:
    running = undisturbed.work.start(small_disk / "out")
    running.until_parts(5)
    fill(small_disk)
    time.sleep(5)
    larger(small_disk)
    assert running.ended() == 0, running.said()
    check(undisturbed.work, small_disk / "out", undisturbed.whole)
