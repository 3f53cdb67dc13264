"""The shell: jobs over many items on Dask clusters, with ledgers, clocks and exit codes."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tnet_geo.operations.build import BuildReport as BuildReport
    from tnet_geo.operations.build import build_archive as build_archive
    from tnet_geo.operations.classify import ClassifyReport as ClassifyReport
    from tnet_geo.operations.classify import classify as classify
    from tnet_geo.operations.evaluate import Evaluation as Evaluation
    from tnet_geo.operations.evaluate import evaluate as evaluate
    from tnet_geo.operations.train import TrainReport as TrainReport
    from tnet_geo.operations.train import train as train

# Loaded at first use: a job must not pay for what the others need.
_HOMES = {
    "BuildReport": "build",
    "ClassifyReport": "classify",
    "Evaluation": "evaluate",
    "TrainReport": "train",
    "build_archive": "build",
    "classify": "classify",
    "evaluate": "evaluate",
    "train": "train",
}

__all__ = [
    "BuildReport",
    "ClassifyReport",
    "Evaluation",
    "TrainReport",
    "build_archive",
    "classify",
    "evaluate",
    "train",
]


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    # `classify` and others are names of modules too, which the import has just bound here.
    globals()[name] = found
    return found
