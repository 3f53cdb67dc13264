"""Every run file of `configs/` is one that `train` takes."""

from __future__ import annotations

from pathlib import Path

import pytest

from tnet_geo.learning.settings import RunSettings, read_run

PROJECT = Path(__file__).resolve().parents[2]
RUN_FILES = sorted((PROJECT / "configs").rglob("*.toml"))


def test_there_are_run_files() -> None:
    assert RUN_FILES


@pytest.mark.parametrize("path", RUN_FILES, ids=lambda path: path.name)
def test_a_run_file_parses(path: Path) -> None:
    assert isinstance(read_run(path), RunSettings)
