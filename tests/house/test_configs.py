"""Every run file of `configs/` is one that `train` takes."""

from __future__ import annotations

from pathlib import Path

from tnet_geo.demo import demo_settings
from tnet_geo.learning.settings import RunSettings, read_run

PROJECT = Path(__file__).resolve().parents[2]
RUN_FILES = sorted((PROJECT / "configs").rglob("*.toml"))


def test_there_are_run_files_and_they_parse() -> None:
    assert RUN_FILES
    assert all(isinstance(read_run(path), RunSettings) for path in RUN_FILES)


def test_the_demo_trains_what_its_run_file_says() -> None:
    assert read_run(PROJECT / "configs" / "runs" / "demo.toml") == demo_settings(Path("demo"), seed=0)
