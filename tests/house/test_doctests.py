"""Examples in docstrings give what they show."""

from __future__ import annotations

import doctest
import importlib
from pathlib import Path

import pytest
import tomli_w

from tests.archives import TinyArchive
from tnet_geo.imagery import write_manifest
from tnet_geo.operations import classify
from tnet_geo.operations.training import train_with

PROJECT = Path(__file__).resolve().parents[2]
WITH_EXAMPLES = [
    path.relative_to(PROJECT).with_suffix("").as_posix().replace("/", ".").removesuffix(".__init__")
    for path in sorted((PROJECT / "tnet_geo").rglob("*.py"))
    if ">>> " in path.read_text(encoding="utf-8")
]


@pytest.fixture(scope="session")
def workshop(tiny: TinyArchive, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What examples name: sites.parquet, archive, run.toml, runs/first, results."""
    folder = tmp_path_factory.mktemp("workshop")
    write_manifest(tiny.manifest.sites, folder / "sites.parquet")
    (folder / "archive").symlink_to(tiny.archive.path)
    settings = tiny.settings(folder / "runs/first")
    train_with(settings)
    table = settings.model_dump(mode="json", exclude_none=True)
    (folder / "run.toml").write_text(tomli_w.dumps(table))
    classify(
        archive=folder / "archive",
        manifest=folder / "sites.parquet",
        bundle=folder / "runs/first/bundle",
        out=folder / "results",
        workers=1,
    )
    return folder


@pytest.mark.parametrize("name", WITH_EXAMPLES)
def test_the_examples_of_a_module_run_as_written(
    name: str, workshop: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(workshop)
    module = importlib.import_module(name)
    result = doctest.testmod(module, optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
    assert result.failed == 0
