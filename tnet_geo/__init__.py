"""tnet-geo: classify sites in archives of imagery, reading only the pixels that matter.

The names below are handed on when they are first used, so that `import tnet_geo` costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tnet_geo.grid import Tile
    from tnet_geo.imagery import manifest_from_folder
    from tnet_geo.inference import load_bundle
    from tnet_geo.operations.building.build import build_archive
    from tnet_geo.operations.classifying.classification import classify
    from tnet_geo.operations.judging.evaluation import evaluate
    from tnet_geo.operations.training import train
    from tnet_geo.pyramid import open_archive
    from tnet_geo.results import Results

__all__ = [
    "Results",
    "Tile",
    "__version__",
    "build_archive",
    "classify",
    "evaluate",
    "load_bundle",
    "manifest_from_folder",
    "open_archive",
    "train",
]

# Modules, not rooms, where a job has the name of its module: the room's attribute may be either.
_HOMES = {
    "Results": "tnet_geo.results",
    "Tile": "tnet_geo.grid",
    "build_archive": "tnet_geo.operations.building.build",
    "classify": "tnet_geo.operations.classifying.classification",
    "evaluate": "tnet_geo.operations.judging.evaluation",
    "load_bundle": "tnet_geo.inference",
    "manifest_from_folder": "tnet_geo.imagery",
    "open_archive": "tnet_geo.pyramid",
    "train": "tnet_geo.operations.training",
}


def __getattr__(name: str) -> Any:
    """Load a public name from the room where it lives, once."""
    if name == "__version__":
        value: Any = import_module("importlib.metadata").version("tnet-geo")
    elif name in _HOMES:
        value = getattr(import_module(_HOMES[name]), name)
    else:
        raise AttributeError(f"module 'tnet_geo' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
