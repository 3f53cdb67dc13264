"""The generated archive, and the whole journey over it.

The names below are handed on when they are first used: processes that write scenes never load torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tnet_geo.demo.journey import DemoReport, demo_settings, run_demo
    from tnet_geo.demo.objects import class_names
    from tnet_geo.demo.scenes import Scene, generate_scenes, make_scene

__all__ = ["DemoReport", "Scene", "class_names", "demo_settings", "generate_scenes", "make_scene", "run_demo"]

_HOMES = {
    "DemoReport": "tnet_geo.demo.journey",
    "Scene": "tnet_geo.demo.scenes",
    "class_names": "tnet_geo.demo.objects",
    "demo_settings": "tnet_geo.demo.journey",
    "generate_scenes": "tnet_geo.demo.scenes",
    "make_scene": "tnet_geo.demo.scenes",
    "run_demo": "tnet_geo.demo.journey",
}


def __getattr__(name: str) -> Any:
    """Load a public name from the module where it lives, once."""
    if name not in _HOMES:
        raise AttributeError(f"module 'tnet_geo.demo' has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(_HOMES[name]), name)
    return value


def __dir__() -> list[str]:
    return __all__
