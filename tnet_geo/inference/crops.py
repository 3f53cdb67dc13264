"""Walks over windows that do not lie on the lattice: pictures in memory, one at a time.

The siblings of published TNet for ImageNet and birds cut 5 x 5 windows out of the picture itself. No
pyramid can serve these, so that the whole picture is in memory.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from tnet_geo.inference.walks import path_centre
from tnet_geo.model.choice import top_children
from tnet_geo.model.network import SiteOutput, TraversalNetwork
from tnet_geo.model.places import Places
from tnet_geo.model.settings import WalkSettings
from tnet_geo.model.windows import Windows
from tnet_geo.trail import Step

__all__ = ["CropWalk", "walk_crops"]


@dataclass(frozen=True)
class CropWalk:
    """One walk that has ended."""

    output: SiteOutput
    trail: tuple[Step, ...]
    """`level` counts from the deepest look; rows and columns are those of the path's cell."""


@torch.inference_mode()
def walk_crops(network: TraversalNetwork, picture: Tensor, walk: WalkSettings) -> CropWalk:
    """Walk over a square picture, float32 [bands, S, S] in the network's scaling.

    Every depth's crops are resized to the network's side without antialiasing. Children are taken in the
    order of windows, and twice where two parents share one.

    Source: reference code of TNet (NeurIPS 2021).
    """
    settings = network.settings
    windows, last = settings.location.windows, len(walk.keep)
    images, features, trail = picture[None], [], [Step(last, 0, 0, 1.0)]
    paths: list[tuple[int, int]] = [(0, 0)]
    for depth in range(last + 1):
        side = (settings.base_px, settings.base_px)
        tiles = functional.interpolate(images, side, mode="bilinear", align_corners=False)
        centres = torch.tensor([path_centre(path, depth, windows) for path in paths])
        places = Places(torch.full((len(paths),), depth), centres, centres)
        output = network.look(tiles, places)
        features.append(output.features)
        if depth == last:
            break
        everyone = torch.ones_like(output.child_logits, dtype=torch.bool)
        chosen = [sorted(row) for row in top_children(output.child_logits, everyone, walk.keep[depth])]
        shares = torch.softmax(output.child_logits.double(), dim=1)
        images = _crops(images, chosen, windows, settings.location.fraction)
        picked = [(n, k) for n, row in enumerate(chosen) for k in row]
        paths = [
            (windows * paths[n][0] + k // windows, windows * paths[n][1] + k % windows) for n, k in picked
        ]
        trail += [
            Step(last - depth - 1, *path, float(shares[n, k]))
            for path, (n, k) in zip(paths, picked, strict=True)
        ]
    bag = torch.cat(features)[None]
    return CropWalk(network.aggregate(bag, torch.ones(bag.shape[:2], dtype=torch.bool)), tuple(trail))


def _crops(images: Tensor, chosen: list[list[int]], count: int, fraction: float) -> Tensor:
    """The chosen windows [n, bands, side, side] of images [m, bands, S, S], image by image."""
    windows = Windows.of(images.shape[-1], count, fraction)
    border = (windows.before, windows.after)
    padded = functional.pad(images, (*border, *border))
    crops = []
    for image, row in zip(padded, chosen, strict=True):
        for k in row:
            top, left = k // count * windows.stride, k % count * windows.stride
            crops.append(image[:, top : top + windows.side, left : left + windows.side])
    return torch.stack(crops)
