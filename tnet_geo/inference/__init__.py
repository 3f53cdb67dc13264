"""Many walks at once: engine, evidence, and the classifier that bundles answer through."""

from tnet_geo.inference.classifier import Classification, Classifier, load_bundle
from tnet_geo.inference.engine import Engine, WalkResult
from tnet_geo.inference.walks import SiteTask, Walk, candidates_of, position_in

__all__ = [
    "Classification",
    "Classifier",
    "Engine",
    "SiteTask",
    "Walk",
    "WalkResult",
    "candidates_of",
    "load_bundle",
    "position_in",
]
