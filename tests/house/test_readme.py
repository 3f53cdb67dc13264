"""README's commands run as written, one after the other, in a folder with pictures and nothing else."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from tests.house.documents import Command, commands

PROJECT = Path(__file__).resolve().parents[2]
SHOWN = commands(PROJECT / "README.md", PROJECT)
HEADINGS = {
    line: number
    for number, line in enumerate((PROJECT / "README.md").read_text(encoding="utf-8").splitlines(), start=1)
    if line.startswith("## ")
}


def section(heading: str) -> list[Command]:
    """The commands of one section."""
    first = HEADINGS[heading]
    last = min((number for number in HEADINGS.values() if number > first), default=1 << 30)
    return [command for command in SHOWN if first < command.line < last]


JOURNEY = [command for command in section("## Your own pictures") if command.words[0] == "tnet-geo"]
REAL = section("## Real imagery")
QUICK = [command for command in JOURNEY if command.words[1] in {"manifest", "pyramid"}]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """`pictures` with three classes that their colours tell apart, and the project's run files."""
    noise = np.random.default_rng(0)
    for number, name in enumerate(("meadow", "quarry", "water")):
        (tmp_path / "pictures" / name).mkdir(parents=True)
        for picture in range(16):
            pixels = noise.integers(0, 120, size=(128, 128, 3), dtype=np.uint8)
            pixels[..., number] += 100
            cv2.imwrite(str(tmp_path / "pictures" / name / f"{picture}.png"), pixels)
    if (PROJECT / "configs").exists():
        shutil.copytree(PROJECT / "configs", tmp_path / "configs")
    return tmp_path


def typed(command: Command, folder: Path) -> str:
    """Run a command as a shell would in `folder`, with this environment's `tnet-geo`; gives its stdout."""
    path = os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"]))
    done = subprocess.run(
        command.text,
        shell=True,
        cwd=folder,
        env={**os.environ, "PATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    expected = 3 if command.text.endswith("# exit status 3") else 0
    assert done.returncode == expected, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def test_readme_opens_with_two_commands() -> None:
    assert [command.words for command in SHOWN[:2]] == [["make", "demo"], ["make", "test"]]


def test_readme_shows_the_whole_journey_in_its_order() -> None:
    verbs = [command.words[1] for command in JOURNEY]
    order = ["manifest", "pyramid", "train", "evaluate", "classify", "results"]
    assert list(dict.fromkeys(verbs)) == order


def test_the_quick_commands_run_as_written(folder: Path) -> None:
    for command in QUICK:
        typed(command, folder)
    assert (folder / "sites.parquet").exists()
    assert len(list((folder / "archive" / "scenes").iterdir())) == 48


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_all_commands_run_as_written(folder: Path) -> None:
    for command in JOURNEY:
        typed(command, folder)
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert "http://" not in page.replace("http://www.w3.org/", "")
    assert json.loads((folder / "evaluation.json").read_text())


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_the_run_on_real_imagery_runs_as_written(shared_data: Path, tmp_path: Path) -> None:
    place = tmp_path / "project"
    shutil.copytree(PROJECT / "configs", place / "configs")
    (tmp_path / "shared").symlink_to(shared_data.parent)
    for command in REAL:
        typed(command, place)
    failed = (place / "runs/answers/failed.csv").read_text()
    assert failed.count("1 bands of uint16") == 2


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_make_demo_runs_as_written_and_a_second_time(tmp_path: Path) -> None:
    shutil.copy(PROJECT / "Makefile", tmp_path)
    # What is installed here is taken for what `make install` would have installed there.
    demo = ["make", "--old-file=.venv/.installed", f"BIN={Path(sys.executable).parent}", "demo"]
    (tmp_path / ".venv").mkdir()
    (tmp_path / ".venv/.installed").touch()
    shutil.copy(PROJECT / "pyproject.toml", tmp_path)
    shutil.copy(PROJECT / "constraints.txt", tmp_path)
    subprocess.run(demo, cwd=tmp_path, check=True)
    first = json.loads((tmp_path / "demo/summary.json").read_text())
    assert (tmp_path / "demo/report.html").exists()
    subprocess.run(demo, cwd=tmp_path, check=True)
    second = json.loads((tmp_path / "demo/summary.json").read_text())
    assert second["walk"]["accuracy"] == first["walk"]["accuracy"]
