"""Every run file of `configs/` is one that `train` takes, every model file one that can be built."""

from __future__ import annotations

from pathlib import Path

from tnet_geo.demo import demo_settings
from tnet_geo.learning.settings import RunSettings, read_run
from tnet_geo.model.named import model_names, named_model

PROJECT = Path(__file__).resolve().parents[2]
RUN_FILES = sorted((PROJECT / "configs" / "runs").rglob("*.toml"))


def test_there_are_run_files_and_they_parse() -> None:
    assert RUN_FILES
    assert all(isinstance(read_run(path), RunSettings) for path in RUN_FILES)


def test_the_demo_trains_what_its_run_file_says() -> None:
    assert read_run(PROJECT / "configs" / "runs" / "demo.toml") == demo_settings(Path("demo"), seed=0)


def test_every_named_model_has_as_many_classes_as_outputs() -> None:
    assert {"efficientnet_fmow", "tnet_fmow", "tnet_fmow_448"} <= set(model_names())
    for name in model_names():
        model = named_model(name)
        assert len(model.classes) == model.network.classes
