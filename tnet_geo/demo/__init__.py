"""The generated archive, and the whole journey over it."""

from tnet_geo.demo.journey import DemoReport, demo_settings, run_demo
from tnet_geo.demo.objects import class_names
from tnet_geo.demo.scenes import Scene, generate_scenes, make_scene

__all__ = ["DemoReport", "Scene", "class_names", "demo_settings", "generate_scenes", "make_scene", "run_demo"]
