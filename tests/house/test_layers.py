"""Imports point one way, and a room without a place is refused."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[2]


def lint(folder: Path) -> subprocess.CompletedProcess[str]:
    """import-linter over the package in `folder`, not over the one that is installed."""
    code = "import sys; sys.path.insert(0, ''); from importlinter.cli import lint_imports_command as c; c()"
    return subprocess.run(
        [sys.executable, "-c", code, "--no-cache"], cwd=folder, capture_output=True, text=True, check=False
    )


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A house that may be spoilt."""
    shutil.copy(PROJECT / "pyproject.toml", tmp_path)
    skip = shutil.ignore_patterns("__pycache__")
    shutil.copytree(PROJECT / "tnet_geo", tmp_path / "tnet_geo", ignore=skip)
    return tmp_path


def test_the_house_keeps_its_contracts(copy: Path) -> None:
    report = lint(copy)
    assert report.returncode == 0, report.stdout


def test_a_new_room_without_a_place_is_refused(copy: Path) -> None:
    (copy / "tnet_geo/attic").mkdir()
    (copy / "tnet_geo/attic/__init__.py").write_text("")
    report = lint(copy)
    assert report.returncode == 1
    assert "attic" in report.stdout


@pytest.mark.parametrize(
    ("room", "line"),
    [
        ("imagery", "import tnet_geo.pyramid"),
        ("results", "import tnet_geo.inference"),
        ("pyramid", "def hidden() -> None:\n    import torch"),
        ("learning", "import distributed"),
        ("demo", "import dask"),
        ("operations", "import typer"),
        ("grid", "import numpy"),
    ],
)
def test_an_import_against_the_flow_is_refused(copy: Path, room: str, line: str) -> None:
    module = copy / "tnet_geo" / f"{room}.py"
    module = module if module.exists() else copy / "tnet_geo" / room / "__init__.py"
    module.write_text(f"{module.read_text()}\n{line}\n")
    assert lint(copy).returncode == 1


def test_every_room_is_named_in_the_contracts_about_what_it_may_load() -> None:
    contracts = tomllib.loads((PROJECT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    parsing = next(c for c in contracts if c["name"] == "Only the command line parses arguments")
    rooms = {f"tnet_geo.{init.parent.name}" for init in (PROJECT / "tnet_geo").glob("*/__init__.py")}
    assert rooms - {"tnet_geo.cli"} == set(parsing["source_modules"])
