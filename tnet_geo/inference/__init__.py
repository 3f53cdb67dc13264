"""Many walks at once: engine, evidence, and the classifier that bundles answer through."""

from tnet_geo.inference.budgets import Budget, most_looks
from tnet_geo.inference.classifier import Classification, Classifier, load_bundle
from tnet_geo.inference.engine import Engine, WalkResult
from tnet_geo.inference.walks import SiteTask, Walk, candidates_of, position_in

__all__ = [
    "Budget",
    "Classification",
    "Classifier",
    "Engine",
    "SiteTask",
    "Walk",
    "WalkResult",
    "candidates_of",
    "load_bundle",
    "most_looks",
    "position_in",
]
