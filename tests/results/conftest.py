"""One small finished run that the tests of this room read."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.results.synthetic import Scenes, make_results
from tnet_geo.results import Results


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Scenes]:
    """Folder and scenes of 14 answered sites, two of them wrong, and two that are set aside."""
    return make_results(tmp_path_factory.mktemp("run") / "results", sites=14)


@pytest.fixture
def results(run: tuple[Path, Scenes]) -> Results:
    return Results.open(run[0])


@pytest.fixture
def scenes(run: tuple[Path, Scenes]) -> Scenes:
    return run[1]
