"""What a site costs by its size: seconds and bytes of a walk, of dense looking, and of reading all of it.

Dense looking is the sliding window at its cheapest: windows side by side, none overlapping, read in rows
while the row before is looked at, in batches of the engine's size.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from itertools import groupby
from pathlib import Path
from statistics import median

import numpy as np
import tensorstore as ts
import torch
from torch import Tensor

from tests.benchmarks.crews import Crew, crews
from tests.benchmarks.engine_rivals import answered
from tests.benchmarks.engine_scenes import archive_of, bundle_of, sites_of
from tests.benchmarks.machine import Figures
from tnet_geo.grid import Tile, Window, disjoint_tiles, root_of
from tnet_geo.inference import Classifier, load_bundle
from tnet_geo.inference.passes import pixels_tensor
from tnet_geo.inference.walks import Place, path_centre, places_of, position_in, usual_path
from tnet_geo.pyramid import open_scenes
from tnet_geo.pyramid.tiles import TileBatch, TileReader

SCENES = {896: 16, 1792: 16, 3584: 4, 7168: 4, 14_336: 4, 28_672: 2}
"""How many different scenes there are of each side; where there are fewer than sites, they come again."""
KEY_SIDE = 14_336
DENSE_ROUNDS = 3
CHUNK_READS = "/tensorstore/cache/chunk_cache/reads"
BYTES_READ = "/tensorstore/kvstore/file/bytes_read"


def bench_costs(given: argparse.Namespace) -> Figures:
    """Time and bytes over sides; slopes are of logarithms, against the pixels of a site."""
    folder: Path = given.folder
    sides = [side for side in SCENES if side <= given.largest]
    for side in sides:
        archive_of(folder, side, SCENES[side])
    bundle_of(folder)
    dense_sides = [side for side in sides if side <= given.dense]
    seconds: dict[str, dict[int, list[float]]] = {
        "walk": {side: [] for side in sides},
        "dense": {side: [] for side in dense_sides},
        "whole": {side: [] for side in sides},
    }
    with crews() as at_work:
        ways = {"walk": Crew(_walks, folder), "dense": Crew(_dense, folder), "whole": Crew(_whole, folder)}
        at_work.extend(ways.values())
        for round_ in range(given.rounds):
            for side in sides:
                for name, crew in ways.items():
                    if side not in seconds[name] or (name != "walk" and round_ >= DENSE_ROUNDS):
                        continue
                    turn = crew.turn((side, given.sites // 2))
                    seconds[name][side].append(turn.seconds / turn.units)
            print(f"  round {round_ + 1}: {_medians(seconds)}", file=sys.stderr, flush=True)
    return _figures(seconds) | _bytes(folder, sides)


def _medians(seconds: dict[str, dict[int, list[float]]]) -> dict[str, dict[int, float]]:
    return {
        name: {side: round(median(found), 4) for side, found in sides.items() if found}
        for name, sides in seconds.items()
    }


def slope(values: dict[int, float]) -> float:
    """Of log(value) over log(pixels), by least squares."""
    pixels = [2 * np.log(side) for side in values]
    return float(np.polyfit(pixels, [np.log(value) for value in values.values()], 1)[0])


def _figures(seconds: dict[str, dict[int, list[float]]]) -> Figures:
    medians = _medians(seconds)
    figures: Figures = {
        "time_slope": round(slope(medians["walk"]), 3),
        "time_slope_dense": round(slope(medians["dense"]), 3),
        "time_slope_whole": round(slope(medians["whole"]), 3),
        "seconds_per_site": medians,
    }
    walk, dense = seconds["walk"].get(KEY_SIDE), seconds["dense"].get(KEY_SIDE)
    if walk and dense:
        ratio = median(b / a for a, b in zip(walk, dense, strict=False))
        figures[f"walk_vs_dense_{KEY_SIDE}"] = round(ratio, 1)
    return figures


def _walks(folder: Path) -> Callable[[tuple[int, int]], int]:
    """Answers sites of one side, as many at a time as the engine takes."""
    classifier = load_bundle(folder / "bundle")
    list(classifier.answer(open_scenes(folder / "archive-896"), sites_of(896, 1)))

    def work(asked: tuple[int, int]) -> int:
        side, count = asked
        archive = open_scenes(folder / f"archive-{side}")
        sites = sites_of(side, SCENES[side], count)
        return sum(1 for _ in answered(classifier.answer(archive, sites)))

    return work


def _dense(folder: Path) -> Callable[[tuple[int, int]], int]:
    """Looks at every native window of one scene, and adds them up to an answer."""
    classifier = load_bundle(folder / "bundle")

    def work(asked: tuple[int, int]) -> int:
        side, _ = asked
        archive = open_scenes(folder / f"archive-{side}")
        dense_logits(classifier, archive.reader(f"scene-{side}-0", classifier.half_px))
        return 1

    work((896, 1))
    return work


def _whole(folder: Path) -> Callable[[tuple[int, int]], int]:
    """Reads all native pixels of one scene, in the same rows."""

    def work(asked: tuple[int, int]) -> int:
        side, _ = asked
        reader = open_scenes(folder / f"archive-{side}").reader(f"scene-{side}-0", 112)
        for _, row in _rows(reader, Window(0, 0, *reader.spec.shape)):
            row.result()
        return 1

    work((896, 1))
    return work


def _rows(reader: TileReader, window: Window) -> Iterator[tuple[list[Tile], Future[TileBatch]]]:
    """Rows of the native windows, each with its reading; that of the next one is under way, too."""
    tiles = disjoint_tiles(window, 0, reader.spec.half_px)
    rows = [list(row) for _, row in groupby(tiles, key=lambda tile: tile.row)]
    waiting: list[tuple[list[Tile], Future[TileBatch]]] = []
    for row in rows:
        waiting.append((row, reader.submit(row)))
        if len(waiting) > 1:
            yield waiting.pop(0)
    yield from waiting


@torch.inference_mode()
def dense_logits(classifier: Classifier, reader: TileReader, window: Window | None = None) -> Tensor:
    """What all native windows of a scene add up to: float32 [classes]."""
    network, size = classifier.engine.network, classifier.engine.passes.batch_looks
    features = []
    whole = window or Window(0, 0, *reader.spec.shape)
    root = root_of(whole, reader.spec.half_px)
    for row, read in _rows(reader, whole):
        batch = read.result()
        for start in range(0, len(row), size):
            some = slice(start, start + size)
            inputs = network.scale(pixels_tensor(batch.pixels[some]), torch.from_numpy(batch.validity[some]))
            features.append(network.features(inputs, places_of([_place(root, tile) for tile in row[some]])))
    bag = torch.cat(features)[None]
    return network.aggregate(bag, torch.ones(bag.shape[:2], dtype=torch.bool)).logits[0]


def _place(root: Tile, tile: Tile) -> Place:
    """Where a native tile lies that no walk has led to, as dense walks say it."""
    depth = root.level - tile.level
    return depth, position_in(root, tile), path_centre(usual_path(root, tile), depth)


def _bytes(folder: Path, sides: Sequence[int]) -> Figures:
    """Bytes of a site, counted where chunks are decoded and files are read, and not by our own meter."""
    classifier = load_bundle(folder / "bundle")
    tiles, ratios, decoded, stored = {}, {}, {}, {}
    for side in sides:
        archive = open_scenes(folder / f"archive-{side}")
        sites = sites_of(side, SCENES[side])
        before, read = _counter(CHUNK_READS), _counter(BYTES_READ)
        answers = list(answered(classifier.answer(archive, sites)))
        chunks, read = _counter(CHUNK_READS) - before, _counter(BYTES_READ) - read
        spec = archive.reader(sites[0].scene_id, classifier.half_px).spec
        looked = sum(spec.tile_bytes(look.tile) for answer in answers for look in answer.trail.looks)
        ratios[side] = chunks * spec.chunk_bytes / looked
        tiles[side] = round(sum(len(answer.trail) for answer in answers) / len(answers), 2)
        decoded[side] = round(chunks * spec.chunk_bytes / len(answers))
        stored[side] = round(read / len(answers))
    return {
        "bytes_over_tiles": round(max(ratios.values(), key=lambda ratio: abs(ratio - 1)), 6),
        "tiles_per_site": tiles,
        "bytes_decoded_per_site": decoded,
        "bytes_stored_per_site": stored,
        "bytes_of_native_pixels": {side: 3 * side * side for side in sides},
    }


def _counter(name: str) -> int:
    """One of tensorstore's own counters."""
    found = ts.experimental_collect_matching_metrics(name)
    return int(found[0]["values"][0]["value"]) if found else 0
