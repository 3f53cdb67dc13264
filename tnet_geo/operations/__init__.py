"""The shell: jobs over many items on Dask clusters, with ledgers, clocks and exit codes."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tnet_geo.operations.building.build import BuildReport as BuildReport
    from tnet_geo.operations.building.build import build_archive as build_archive
    from tnet_geo.operations.building.forecast import BuildPlan as BuildPlan
    from tnet_geo.operations.building.forecast import plan_archive as plan_archive
    from tnet_geo.operations.classifying.classification import ClassifyReport as ClassifyReport
    from tnet_geo.operations.classifying.classification import classify as classify
    from tnet_geo.operations.estimating.estimation import Estimate as Estimate
    from tnet_geo.operations.estimating.estimation import Prices as Prices
    from tnet_geo.operations.estimating.estimation import estimate as estimate
    from tnet_geo.operations.importing import ImportReport as ImportReport
    from tnet_geo.operations.importing import import_model as import_model
    from tnet_geo.operations.judging.evaluation import Evaluation as Evaluation
    from tnet_geo.operations.judging.evaluation import evaluate as evaluate
    from tnet_geo.operations.training import TrainReport as TrainReport
    from tnet_geo.operations.training import train as train
    from tnet_geo.operations.verification import ModelInfo as ModelInfo
    from tnet_geo.operations.verification import Verification as Verification
    from tnet_geo.operations.verification import model_info as model_info
    from tnet_geo.operations.verification import verify_bundle as verify_bundle

# Loaded at first use: a job must not pay for what the others need.
_HOMES = {
    "BuildPlan": "building.forecast",
    "BuildReport": "building.build",
    "ClassifyReport": "classifying.classification",
    "Estimate": "estimating.estimation",
    "Evaluation": "judging.evaluation",
    "ImportReport": "importing",
    "ModelInfo": "verification",
    "Prices": "estimating.estimation",
    "TrainReport": "training",
    "Verification": "verification",
    "build_archive": "building.build",
    "classify": "classifying.classification",
    "estimate": "estimating.estimation",
    "evaluate": "judging.evaluation",
    "import_model": "importing",
    "model_info": "verification",
    "plan_archive": "building.forecast",
    "train": "training",
    "verify_bundle": "verification",
}

__all__ = [
    "BuildPlan",
    "BuildReport",
    "ClassifyReport",
    "Estimate",
    "Evaluation",
    "ImportReport",
    "ModelInfo",
    "Prices",
    "TrainReport",
    "Verification",
    "build_archive",
    "classify",
    "estimate",
    "evaluate",
    "import_model",
    "model_info",
    "plan_archive",
    "train",
    "verify_bundle",
]


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
