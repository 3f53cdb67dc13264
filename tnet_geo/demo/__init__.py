"""The generated archive, and the whole journey over it."""

from tnet_geo.demo.objects import class_names
from tnet_geo.demo.scenes import Scene, generate_scenes, make_scene

__all__ = ["Scene", "class_names", "generate_scenes", "make_scene"]
