"""Pyramids of random rasters against a plain loop over pixels, and against rasterio's pixels."""

from __future__ import annotations

import math
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from tests.rasters import random_pixels, write_raster
from tnet_geo.errors import SourceUnreadable
from tnet_geo.grid import Tile, footprint, last_level, level_shape
from tnet_geo.pyramid import ArchiveSettings, MemoryReader, create_archive, halve
from tnet_geo.pyramid.build import build_scene

steady = settings(deadline=None, derandomize=True)

seeds = st.integers(0, 2**32 - 1)
dtypes = st.sampled_from(["uint8", "int8", "uint16", "int16", "uint32", "int32", "float32", "float64"])
shapes = st.tuples(st.integers(1, 40), st.integers(1, 40))
masks = st.sampled_from(["none", "all valid", "scattered", "mostly invalid", "half"])


def random_mask(kind: str, seed: int, shape: tuple[int, int]) -> NDArray[np.uint8] | None:
    if kind == "none":
        return None
    random = np.random.default_rng(seed)
    if kind == "half":
        return np.where(np.arange(shape[0])[:, None] * 2 < shape[0], 255, np.zeros(shape)).astype(np.uint8)
    share = {"all valid": 1.0, "scattered": 0.7, "mostly invalid": 0.05}[kind]
    return np.where(random.random(shape) < share, 255, 0).astype(np.uint8)


def halved_pixel_by_pixel(
    pixels: NDArray[Any], validity: NDArray[np.uint8], nodata: float | None = None
) -> tuple[NDArray[Any], NDArray[np.uint8]]:
    """The law of reduction, read from the design and written as loops in Python's own numbers."""
    bands, rows, cols = pixels.shape
    coarse = np.zeros((bands, -(-rows // 2), -(-cols // 2)), pixels.dtype)
    share = np.zeros(coarse.shape[1:], np.uint8)
    for row in range(coarse.shape[1]):
        for col in range(coarse.shape[2]):
            four = [(y, x) for y in (2 * row, 2 * row + 1) for x in (2 * col, 2 * col + 1)]
            four = [(y, x) for y, x in four if y < rows and x < cols]
            share[row, col] = math.floor(sum(int(validity[at]) for at in four) / len(four) + 0.5)
            for band in range(bands):
                values = [pixels[band, y, x].item() for y, x in four if validity[y, x] > 0]
                values = [value for value in values if math.isfinite(value) and value != nodata]
                if not values:
                    coarse[band, row, col] = pixels[band, 2 * row, 2 * col]
                elif pixels.dtype.kind == "f":
                    coarse[band, row, col] = sum(values) / len(values)
                else:
                    coarse[band, row, col] = math.floor(sum(values) / len(values) + 0.5)
    return coarse, share


@steady
@given(seed=seeds, shape=shapes, bands=st.integers(1, 6), dtype=dtypes, mask=masks, with_nodata=st.booleans())
def test_halving_equals_the_plain_loop(
    *, seed: int, shape: tuple[int, int], bands: int, dtype: str, mask: str, with_nodata: bool
) -> None:
    pixels, validity = random_pixels(seed, shape, bands, dtype), random_mask(mask, seed, shape)
    nodata = float(pixels.flat[0]) if with_nodata else None
    if with_nodata:
        pixels[np.random.default_rng(seed).random(pixels.shape) < 0.3] = nodata
    full = np.full(shape, 255, np.uint8)
    expected, expected_share = halved_pixel_by_pixel(pixels, full if validity is None else validity, nodata)
    coarse, share = halve(pixels, validity, nodata)
    assert coarse.dtype == pixels.dtype
    assert_equal_pixels(coarse, expected)
    assert (share is None) == (validity is None)
    if share is not None:
        np.testing.assert_array_equal(share, expected_share)


def assert_equal_pixels(ours: NDArray[Any], theirs: NDArray[Any]) -> None:
    """Equal to the last bit, floats too: both add up in row-major order."""
    np.testing.assert_array_equal(ours, theirs)


@steady
@given(seeds, shapes, st.sampled_from(["float32", "float64"]))
def test_halving_ignores_what_is_not_finite_band_by_band(
    seed: int, shape: tuple[int, int], dtype: str
) -> None:
    pixels = random_pixels(seed, shape, 2, dtype)
    random = np.random.default_rng(seed)
    pixels[random.random(pixels.shape) < 0.4] = np.nan
    pixels[random.random(pixels.shape) < 0.1] = np.inf
    expected, _ = halved_pixel_by_pixel(pixels, np.full(shape, 255, np.uint8))
    assert_equal_pixels(halve(pixels, None)[0], expected)


@settings(parent=steady, max_examples=40)
@given(
    seed=seeds,
    shape=st.tuples(st.integers(1, 90), st.integers(1, 90)),
    bands=st.integers(1, 5),
    dtype=dtypes,
    mask=masks,
    half_px=st.sampled_from([3, 4, 8, 13]),
    shard_chunks=st.sampled_from([2, 4, 16]),
    striped=st.booleans(),
)
def test_a_built_pyramid_equals_rasterios_pixels_and_the_plain_loop(
    *,
    seed: int,
    shape: tuple[int, int],
    bands: int,
    dtype: str,
    mask: str,
    half_px: int,
    shard_chunks: int,
    striped: bool,
) -> None:
    pixels, validity = random_pixels(seed, shape, bands, dtype), random_mask(mask, seed, shape)
    layout = {"tiled": False} if striped else {"blockxsize": 16, "blockysize": 16}
    options = ArchiveSettings(half_px=half_px, shard_chunks=shard_chunks)
    with tempfile.TemporaryDirectory() as folder:
        source = write_raster(Path(folder, "scene.tif"), pixels, validity, **layout)
        archive = create_archive(Path(folder, "archive"), options)
        if validity is not None and not validity.any():
            with pytest.raises(SourceUnreadable, match="not one of its pixels is valid"):
                build_scene(str(source), "scene", archive.path, options)
            return
        build_scene(str(source), "scene", archive.path, options)
        stored = archive.reader("scene")
        levels = [stored.read_level(level) for level in range(stored.spec.levels)]
        with rasterio.open(source) as dataset:
            level, share = dataset.read(), np.asarray(dataset.dataset_mask())
    assert stored.spec.levels == last_level(shape, half_px) + 1
    assert stored.spec.all_valid == bool(share.min() == 255)
    for index, (ours, valid) in enumerate(levels):
        assert ours.shape[1:] == level_shape(shape, index)
        assert_equal_pixels(ours, level)
        np.testing.assert_array_equal(np.full(share.shape, 255) if valid is None else valid, share)
        level, share = halved_pixel_by_pixel(ours, share)


@steady
@given(
    seeds,
    st.tuples(st.integers(1, 90), st.integers(1, 90)),
    masks,
    st.integers(2, 13),
    st.builds(Tile, st.integers(0, 4), st.integers(0, 12), st.integers(0, 12)),
)
def test_a_tile_shows_the_ground_of_its_footprint(
    seed: int, shape: tuple[int, int], mask: str, half_px: int, tile: Tile
) -> None:
    validity = random_mask(mask, seed, shape)
    reader = MemoryReader.of(random_pixels(seed, shape, 2), half_px, validity)
    batch = reader.read([tile])
    levels = reader.spec.levels
    if tile.level >= levels:
        assert not batch.validity.any()
        return
    pixels, share = reader.level(tile.level)
    box, scale = footprint(tile, half_px), 1 << tile.level
    for y in range(reader.spec.base_px):
        for x in range(reader.spec.base_px):
            row, col = box.row // scale + y, box.col // scale + x
            inside = row < pixels.shape[1] and col < pixels.shape[2]
            expected = pixels[:, row, col] if inside else 0
            np.testing.assert_array_equal(batch.pixels[0, :, y, x], expected)
            full = 255 if share is None else share[row, col] if inside else 0
            assert batch.validity[0, y, x] == (full if inside else 0)
