"""Ways to answer the same sites with the same backbone: accuracy beside time, bytes and memory.

The run is a demo's: walk, root and dense networks were trained on the same sites, from the same recipe.
The whole picture is what the dense network's backbone makes of all native pixels in one pass: it was not
trained on pictures, but its end is a maximum over cells, as is the bag it was trained on.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import torch

from tests.benchmarks.crews import Crew, crews
from tests.benchmarks.engine_rivals import answered
from tests.benchmarks.machine import Figures
from tnet_geo.grid import Tile
from tnet_geo.imagery import Site, read_manifest
from tnet_geo.inference import Classifier, load_bundle
from tnet_geo.inference.budgets import Budget
from tnet_geo.inference.passes import pixels_tensor
from tnet_geo.model.places import Places
from tnet_geo.pyramid import SceneArchive, open_scenes

SPLIT = "test"
MANY_TILES = 32
"""Five times what the demo's walks take; their sites have 64 native windows."""
WAYS = {
    "walk": ("bundle", Budget()),
    f"best-first, {MANY_TILES} tiles": ("bundle", Budget(tiles=MANY_TILES)),
    "whole picture": ("rivals/dense", Budget()),
    "sliding window": ("rivals/dense", Budget()),
    "root only": ("rivals/root", Budget()),
}


@dataclass(frozen=True)
class Found:
    """What a site was taken for, and the cost."""

    label: str
    tiles: float
    bytes: int


def bench_table(given: argparse.Namespace) -> Figures:
    """One row a way, each in a process of its own; nothing without a run."""
    if given.run is None:
        print("  left out: it needs --run DEMO, made by `tnet-geo demo --out DEMO`", file=sys.stderr)
        return {}
    run: Path = given.run
    sites = _sites(run)
    rows: dict[str, Figures] = {}
    with crews() as at_work:
        at_work += [Crew(_work, run, way) for way in WAYS]
        turns = [[crew.turn() for crew in at_work] for _ in range(given.rounds)]
        peaks = [crew.peak_mb() for crew in at_work]
    for n, way in enumerate(WAYS):
        found = _asked(run, way)(sites)
        pairs = list(zip(found, sites, strict=True))
        rows[way] = {
            "accuracy": round(_mean([one.label == site.label for one, site in pairs]), 4),
            "tiles": round(_mean([one.tiles for one in found]), 2),
            "bytes_decoded": round(_mean([one.bytes for one in found])),
            "ms_a_site": round(1e3 * median(each[n].seconds / each[n].units for each in turns), 2),
            "peak_mb": round(peaks[n], 1),
        }
    return {"table": rows, "table_sites": len(sites), "table_split": SPLIT}


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _sites(run: Path) -> list[Site]:
    return list(read_manifest(run / "sites.parquet").select(SPLIT).sites)


def _work(run: Path, way: str) -> Callable[[Any], int]:
    """In a process of its own: all sites once a turn."""
    sites, ask = _sites(run), _asked(run, way)
    ask(sites[:1])
    return lambda _: len(ask(sites))


def _asked(run: Path, way: str) -> Callable[[Sequence[Site]], list[Found]]:
    """What answers sites in one way."""
    folder, budget = WAYS[way]
    classifier = load_bundle(run / "run" / folder, budget=budget)
    archive = open_scenes(run / "archive")
    if way == "whole picture":
        return lambda sites: [_whole(classifier, archive, site) for site in sites]
    return lambda sites: [
        Found(answer.label, len(answer.trail), answer.bytes_decoded)
        for answer in answered(classifier.answer(archive, sites))
    ]


@torch.inference_mode()
def _whole(classifier: Classifier, archive: SceneArchive, site: Site) -> Found:
    """One pass over all native pixels at once."""
    network = classifier.engine.network
    coarse = archive.reader(site.scene_id, classifier.half_px).spec
    side = max(coarse.shape)
    half_px = classifier.half_px * -(-side // (2 * classifier.half_px))
    reader = archive.reader(site.scene_id, half_px)
    picture = Tile(0, 0, 0)
    batch = reader.read([picture])
    inputs = network.scale(pixels_tensor(batch.pixels), torch.from_numpy(batch.validity))
    nowhere = torch.zeros(1, 2)
    depth = torch.tensor([max(0, coarse.levels - 1)])
    features = network.features(inputs, Places(depth, nowhere, nowhere))
    output = network.aggregate(features[:, None], torch.ones(1, 1, dtype=torch.bool))
    return Found(classifier.classes[int(output.logits.argmax())], 1, reader.spec.tile_bytes(picture))
