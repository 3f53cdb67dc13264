"""Pictures in memory, made into what a bundle walks over: its canvas, its reduction, its values."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from tnet_geo.errors import SiteMismatch
from tnet_geo.grid import Window
from tnet_geo.model.facts import BundleFacts
from tnet_geo.pyramid import MemoryReader
from tnet_geo.pyramid.canvas import fit

__all__ = ["own_units", "picture_pixels", "picture_reader"]


def own_units(images: NDArray[Any], facts: BundleFacts, *, accept: frozenset[str]) -> NDArray[Any]:
    """Images [N, H, W, bands] in the bundle's units.

    Its own dtype is taken as it is. Floats are taken too: in the bundle's units, or, by a bundle for
    uint8, from 0 to 1 where no value of the batch is above 1, as pictures of floats usually are.

    Raises:
        SiteMismatch: other bands, or another dtype that was not accepted.
    """
    pixels = facts.network.pixels
    bands, dtype = images.shape[-1], images.dtype
    known = dtype == pixels.dtype or dtype.kind == "f" or "dtype" in accept
    if images.ndim != 4 or bands != pixels.bands or not known:
        has = f"{bands} bands of {dtype}" if images.ndim == 4 else f"the shape {images.shape}"
        wants = f"{pixels.bands} of {pixels.dtype}"
        what = "the bundle was trained on " if images.ndim == 4 else "images are [N, H, W, bands] with "
        raise SiteMismatch("image 0", has, what + wants)
    if dtype.kind != "f" or dtype == pixels.dtype:
        return images
    scaled = images.astype(np.float32)
    if pixels.dtype == "uint8" and scaled.size and scaled.min() >= 0 and scaled.max() <= 1:
        scaled *= 255
    return scaled


def picture_pixels(image: NDArray[Any], facts: BundleFacts) -> NDArray[Any]:
    """A picture [H, W, bands] on the bundle's canvas: [bands, y, x].

    Where the bundle reduces as published, the picture is resized so too: in float32, bilinear, without
    antialiasing and without rounding. Otherwise it becomes what an archive of that canvas holds.
    """
    pixels = np.ascontiguousarray(image.transpose(2, 0, 1))
    central = facts.reduction == "central"
    if central:
        pixels = pixels.astype(np.float32)
    if facts.canvas == "native":
        return pixels
    side = int(facts.canvas.removeprefix("fit:"))
    if pixels.shape[1:] == (side, side):
        return pixels
    if central:
        whole = torch.from_numpy(pixels)[None]
        resized: NDArray[Any] = functional.interpolate(whole, (side, side), mode="bilinear")[0].numpy()
        return resized
    fitted, _ = fit(
        lambda strip: (pixels[:, strip.row : strip.bottom, strip.col : strip.right], None),
        Window(0, 0, pixels.shape[1], pixels.shape[2]),
        side,
        pixel_bytes=pixels.shape[0] * pixels.itemsize,
    )
    return fitted


def picture_reader(image: NDArray[Any], facts: BundleFacts) -> MemoryReader:
    """The pyramid of a picture [H, W, bands] on the bundle's canvas, by the bundle's reduction."""
    half_px = facts.network.base_px // 2
    pixels = picture_pixels(image, facts)
    if facts.reduction == "central":
        return MemoryReader.central(pixels, half_px)
    return MemoryReader.of(pixels, half_px)
