"""Tile to logits: backbones, location head, choice of children, aggregation, bundles."""

from tnet_geo.model.bundle import Bundle, BundleFacts, read_bundle
from tnet_geo.model.choice import plackett_luce_log_prob, sample_children, top_children
from tnet_geo.model.network import LookOutput, SiteOutput, TraversalNetwork
from tnet_geo.model.places import Places
from tnet_geo.model.settings import NetworkSettings, PixelSettings, WalkSettings

__all__ = [
    "Bundle",
    "BundleFacts",
    "LookOutput",
    "NetworkSettings",
    "PixelSettings",
    "Places",
    "SiteOutput",
    "TraversalNetwork",
    "WalkSettings",
    "plackett_luce_log_prob",
    "read_bundle",
    "sample_children",
    "top_children",
]
