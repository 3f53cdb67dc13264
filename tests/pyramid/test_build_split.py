"""One scene as many tasks: the same bytes whatever the tasks, their order and the source's inner form."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.rasters import random_pixels, write_raster
from tnet_geo.errors import SourceUnreadable
from tnet_geo.grid import Window
from tnet_geo.imagery.raster import open_raster
from tnet_geo.pyramid import ArchiveSettings, MemoryReader, create_archive
from tnet_geo.pyramid.assembler import Assembler, Block, Shard
from tnet_geo.pyramid.build import (
    begin_scene,
    build_scene,
    build_subtree,
    finish_scene,
    hash_scene,
    join_subtrees,
    scene_layout,
    seal_scenes,
)
from tnet_geo.pyramid.plan import SceneHeader, check_writes, shards_at, split_level, subtrees, task_bytes
from tnet_geo.pyramid.source import blocks_of
from tnet_geo.pyramid.store import open_store

DTYPES = ["uint8", "int8", "uint16", "int16", "uint32", "int32", "float32", "float64"]


def contents(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def build_in_parts(source: Path, archive: Path, options: ArchiveSettings, level: int, seed: int) -> None:
    """Subtrees of `level` in a random order, then parents of four, then the seal."""
    random = np.random.default_rng(seed)
    begun = begin_scene(str(source), "scene", open_store(archive), options)
    shape, top = begun.layout.shape, begun.top
    quarters = {}
    for shard in random.permutation(np.array(subtrees(shape, level, options), object)):
        quarters[shard] = build_subtree(begun, shard)
    while top not in quarters:
        parents = {shard.parent for shard in quarters}
        quarters = {
            parent: join_subtrees(
                begun, parent, [quarters[shard] for shard in quarters if shard.parent == parent]
            )
            for parent in parents
        }
    seal_scenes([finish_scene(begun, quarters[top], hash_scene(begun))])


@settings(deadline=None, derandomize=True, max_examples=40)
@given(
    seed=st.integers(0, 2**32 - 1),
    shape=st.tuples(st.integers(1, 90), st.integers(1, 90)),
    bands=st.integers(1, 3),
    dtype=st.sampled_from(DTYPES),
    form=st.sampled_from(["plain", "mask", "nodata", "both"]),
    half_px=st.sampled_from([3, 4, 7]),
    shard_chunks=st.sampled_from([2, 4]),
    level=st.integers(0, 3),
)
def test_any_split_in_any_order_gives_the_bytes_of_one_task_and_the_pixels_of_the_plain_reduction(
    *,
    seed: int,
    shape: tuple[int, int],
    bands: int,
    dtype: str,
    form: str,
    half_px: int,
    shard_chunks: int,
    level: int,
) -> None:
    pixels, random = random_pixels(seed, shape, bands, dtype), np.random.default_rng(seed)
    mask, profile = None, {}
    if form in {"mask", "both"}:
        mask = np.where(random.random(shape) < 0.7, 255, 0).astype(np.uint8)
        mask[0, 0] = 255
    if form in {"nodata", "both"}:
        profile["nodata"] = 7
        pixels[random.random(pixels.shape) < 0.3] = 7
        pixels[:, 0, 0] = 9
    options = ArchiveSettings(half_px=half_px, shard_chunks=shard_chunks)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        source = write_raster(folder / "scene.tif", pixels, mask, blockxsize=16, blockysize=16, **profile)
        whole, parts = (create_archive(folder / each, options) for each in ("whole", "parts"))
        build_scene(str(source), "scene", whole.store, options)
        with open_raster(str(source)) as raster:
            levels = len(scene_layout("scene", str(source), raster.info, options).shapes)
        build_in_parts(source, parts.path, options, min(level, levels - 1), seed)
        assert contents(parts.scenes) == contents(whole.scenes)
        stored = whole.reader("scene")
        with open_raster(str(source)) as raster:
            pixels, validity = raster.read(Window(0, 0, *raster.info.shape))
        expected = MemoryReader.of(pixels, half_px, validity, nodata=profile.get("nodata"))
        for index in range(stored.spec.levels):
            _, share = stored.read_level(index)
            clean = MemoryReader.load(stored).level(index)[0]
            np.testing.assert_array_equal(clean, expected.level(index)[0])
            theirs = expected.level(index)[1]
            if share is not None:
                np.testing.assert_array_equal(share, theirs)


@settings(deadline=None, derandomize=True, max_examples=60)
@given(seed=st.integers(0, 2**32 - 1), shape=st.tuples(st.integers(1, 90), st.integers(1, 90)))
def test_each_shard_is_written_once_whatever_the_order_of_blocks(seed: int, shape: tuple[int, int]) -> None:
    options = ArchiveSettings(half_px=4, shard_chunks=2)
    pixels = random_pixels(seed, shape)
    with tempfile.TemporaryDirectory() as name:
        source = write_raster(Path(name, "a.tif"), pixels, blockxsize=16, blockysize=16)
        with open_raster(str(source)) as raster:
            layout = scene_layout("a", str(source), raster.info, options)
            top = Shard(len(layout.shapes) - 1, 0, 0)
            blocks = list(blocks_of(raster.read, True, layout, top))
    written: list[dict[Shard, Block]] = []
    for order in (np.arange(len(blocks)), np.random.default_rng(seed).permutation(len(blocks))):
        seen: dict[Shard, Block] = {}

        def keep(shard: Shard, block: Block, seen: dict[Shard, Block] = seen) -> None:
            assert shard not in seen
            seen[shard] = block

        assembler = Assembler(layout, top, keep)
        for index in order:
            assembler.add(*blocks[index])
        written.append(seen)
    first, second = written
    expected = sum(np.prod(shards_at(shape, level, options)) for level in range(len(layout.shapes)))
    assert first.keys() == second.keys()
    assert len(first) == expected
    for shard, (block, _) in first.items():
        np.testing.assert_array_equal(block, second[shard][0])


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_tiled_and_striped_copies_of_a_source_give_the_same_pixels_in_the_same_files(
    tmp_path: Path, dtype: str
) -> None:
    # The digests differ: they name the bytes of the sources. All that holds pixels is the same.
    options = ArchiveSettings(half_px=16, shard_chunks=2)
    pixels = random_pixels(5, (300, 230), 3, dtype)
    mask = np.where(np.random.default_rng(1).random((300, 230)) < 0.9, 255, 0).astype(np.uint8)
    found = []
    for name, profile in (
        ("tiled", {}),
        ("striped", {"tiled": False, "blockxsize": None, "blockysize": None}),
    ):
        source = write_raster(tmp_path / name / "a.tif", pixels, mask, **profile)
        archive = create_archive(tmp_path / f"{name}-archive", options)
        build_scene(str(source), "a", archive.store, options)
        found.append(contents(archive.scenes / "a"))
    seals = [files.pop("zarr.json") for files in found]
    assert found[0] == found[1]
    assert len(found[0]) > 100
    assert seals[0] != seals[1]


def header(shape: tuple[int, int], **facts: Any) -> SceneHeader:
    known = {"bands": 3, "itemsize": 1, "tiled": True, "all_valid": True, "decoded_block_bytes": 3 * 512**2}
    return SceneHeader("a", "a.tif", shape, **known | facts)


def test_two_tasks_that_would_write_one_shard_are_refused() -> None:
    options = ArchiveSettings(half_px=16, shard_chunks=4)
    shape = (400, 300)
    whole = subtrees(shape, 1, options)
    check_writes(shape, whole, options)
    with pytest.raises(ValueError, match="would both write"):
        check_writes(shape, [*whole, whole[0]], options)
    with pytest.raises(ValueError, match="would both write"):  # a parent and its child
        check_writes(shape, [*whole, Shard(0, 3, 2)], options)
    with pytest.raises(ValueError, match="native shards have a task"):
        check_writes(shape, whole[1:], options)


def test_scenes_are_split_where_that_helps() -> None:
    options = ArchiveSettings()
    huge, small = header((30_000, 30_000)), header((4_000, 4_000))
    level = split_level(huge, options, 2, huge.values)
    assert level is not None
    assert len(subtrees(huge.shape, level, options)) >= 16
    assert split_level(huge, options, 1, huge.values) is None
    assert split_level(replace(huge, tiled=False), options, 2, huge.values) is None
    assert split_level(small, options, 2, small.values) is None
    assert split_level(huge, options, 2, 1000 * huge.values) is None


def test_the_memory_of_a_task_does_not_grow_with_a_tiled_scene() -> None:
    options = ArchiveSettings()
    small, large = header((10_000, 10_000)), header((30_000, 30_000))
    needs = [task_bytes(one, options, split_level(one, options, 2, one.values)) for one in (small, large)]
    assert needs[1] <= 1.05 * needs[0]
    assert needs[1] < 1.5 * 2**30
    assert task_bytes(replace(large, tiled=False), options, None) < 1.5 * 2**30


def test_a_subtree_of_a_source_that_is_another_now_is_refused(tmp_path: Path) -> None:
    options = ArchiveSettings(half_px=16, shard_chunks=2)
    source = write_raster(tmp_path / "a.tif", random_pixels(1, (200, 200)))
    begun = begin_scene(str(source), "a", open_store(create_archive(tmp_path / "out", options).path), options)
    write_raster(source, random_pixels(2, (90, 90)))
    with pytest.raises(SourceUnreadable, match="it changed while it was read"):
        build_subtree(begun, Shard(1, 0, 0))
