"""The archive job: memory of a worker, two workers against one, and what it takes beside its walks, as JSON.

python tests/benchmarks/scaling.py --json [--only memory,workers,overhead] [--folder FOLDER] [--rounds 3]
    [--sites 100000]

Tiny sites are windows of 48 px of scenes of real content, three looks each, with a tiny network; for the
overhead the same number of them also lies in packs, each a scene of its own. Two workers and one walk
scenes of 1 792 px with efficientnet_b0, one thread a worker, and take turns, each on a cluster of its own
that has answered a few sites before: processes that only wait would have their memory taken away here.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported: one thread, as workers have
os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")

import argparse
import json
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from distributed import Client

sys.path.insert(0, str(Path(__file__).parents[2]))  # run as a script, from anywhere

from tests.benchmarks import engine_scenes
from tests.benchmarks.crews import peak_mb
from tests.benchmarks.engine_scenes import scene, sites_of
from tests.benchmarks.machine import Figures, machine
from tnet_geo.grid import Tile, Window
from tnet_geo.imagery import Site, write_manifest
from tnet_geo.inference.classifier import Classifier
from tnet_geo.model import Bundle, BundleFacts, NetworkSettings, TraversalNetwork, WalkSettings
from tnet_geo.operations import build_archive, classify
from tnet_geo.operations.cluster import cluster
from tnet_geo.pyramid import SceneArchive
from tnet_geo.trail import Answer, Look, Trail

TINY_BASE_PX, TINY_PX, TINY_CANVAS = 32, 48, "fit:64"
SCENES, SCENE_PX = 4, 3584
FEW = 1000
REAL_SIDE, REAL_SCENES, REAL_SITES = 1792, 32, 512
CORES = 2


def tiny_bundle(folder: Path, canvas: str) -> Path:
    """A network that takes next to no time, for sites of one canvas."""
    path = folder / f"tiny-{canvas.replace(':', '-')}"
    if not path.exists():
        torch.manual_seed(0)
        network = TraversalNetwork(NetworkSettings(base_px=TINY_BASE_PX, classes=3, depths=3)).eval()
        facts = BundleFacts(
            classes=("a", "b", "c"),
            network=network.settings,
            walk=WalkSettings(keep=(2, 1)),
            canvas=canvas,
        )
        Bundle(facts, network).save(path)
    return path


def tiny_sites(folder: Path, count: int) -> Path:
    """The manifest of `count` windows of 48 px, at places that a seed chooses."""
    path = folder / f"tiny-{count}.parquet"
    if not path.exists():
        places = np.random.default_rng(0).integers(0, SCENE_PX - TINY_PX, (count, 2)).tolist()
        scenes = [scene(folder, SCENE_PX, n) for n in range(SCENES)]
        sites = [
            Site(f"{n:07}", str(each), each.stem, Window(row, col, TINY_PX, TINY_PX))
            for n, (row, col) in enumerate(places)
            for each in [scenes[n * SCENES // count]]
        ]
        write_manifest(sites, path)
    return path


def tiny_archive(folder: Path, count: int, *, packs: bool) -> Path:
    """Their pyramids: of the scenes that they lie in, or each of its own, in packs."""
    archive = folder / (f"packs-{count}" if packs else "tiny-scenes")
    if not archive.exists():
        draft = folder / f"draft-{archive.name}"
        shutil.rmtree(draft, ignore_errors=True)
        manifest, canvas = tiny_sites(folder, count), TINY_CANVAS if packs else "native"
        half_px = TINY_BASE_PX // 2
        build_archive(manifest, draft, half_px=half_px, packs=packs, canvas=canvas, workers=CORES)
        draft.rename(archive)
    return archive


def run_job(folder: Path, client: Client, **job: Any) -> float:
    """Seconds of one job on a running cluster, into results that are not there yet."""
    results = folder / "results"
    shutil.rmtree(results, ignore_errors=True)
    begun = time.perf_counter()
    report = classify(**job, out=results, scheduler=client.scheduler_info()["address"])
    seconds = time.perf_counter() - begun
    if report.answered != report.selected:
        raise RuntimeError(f"{report.set_aside} of {report.selected} sites are set aside")
    return seconds


def tiny_job(folder: Path, count: int, *, packs: bool = False) -> dict[str, Path]:
    """The options of a job over tiny sites."""
    return {
        "archive": tiny_archive(folder, count, packs=packs),
        "manifest": tiny_sites(folder, count),
        "bundle": tiny_bundle(folder, TINY_CANVAS if packs else "native"),
    }


def bench_memory(given: argparse.Namespace) -> Figures:
    """The highest resident memory of a worker process that has answered few sites, or many."""
    folder, peaks = given.folder, {}
    for count in (FEW, given.sites):
        job = tiny_job(folder, count)
        with cluster(1, None) as client:
            seconds = run_job(folder, client, **job)
            peaks[count] = max(client.run(peak_mb).values())
        print(f"  {count} sites: {peaks[count]:.0f} MB, {seconds:.0f} s", file=sys.stderr, flush=True)
    return {
        "memory_growth": round(peaks[given.sites] / peaks[FEW], 3),
        "memory_mb": {count: round(peak, 1) for count, peak in peaks.items()},
    }


def bench_workers(given: argparse.Namespace) -> Figures:
    """The same job on one worker and on two, in turns, on clusters that have begun."""
    folder: Path = given.folder
    archive = engine_scenes.archive_of(folder, REAL_SIDE, REAL_SCENES)
    bundle = engine_scenes.bundle_of(folder)
    sites = sites_of(REAL_SIDE, REAL_SCENES, given.real_sites)
    manifest = write_manifest(sites, folder / f"real-{os.getpid()}.parquet")
    job = {"archive": archive, "manifest": manifest, "bundle": bundle}
    few = write_manifest(sites[:4], folder / f"warm-{os.getpid()}.parquet")
    warm = job | {"manifest": few, "partition": 1}

    def seconds(workers: int) -> float:
        with cluster(workers, None) as client:
            run_job(folder, client, **warm)
            return run_job(folder, client, **job)

    turns = []
    for round_ in range(given.rounds):
        turns.append((seconds(1), seconds(2)))
        print(f"  round {round_ + 1}: {turns[-1]}", file=sys.stderr, flush=True)
    return {
        "two_workers": round(median(a / b for a, b in turns), 3),
        "workers_seconds": {"1": median(a for a, _ in turns), "2": median(b for _, b in turns)},
        "workers_sites": len(sites),
    }


def bench_overhead(given: argparse.Namespace) -> Figures:
    """Milliseconds a site of a job whose walks are a constant: clusters, tasks, parts, the record."""
    folder, found = given.folder, {}
    for name, packs in (("windows", False), ("packs", True)):
        job = tiny_job(folder, given.sites, packs=packs)
        rounds = []
        for _ in range(given.rounds):
            begun = time.perf_counter()
            with cluster(CORES, None) as client:
                client.run(constant_walks)
                run_job(folder, client, **job)
            rounds.append(1e3 * (time.perf_counter() - begun) / given.sites)
        found[name] = round(median(rounds), 3)
        print(f"  {name}: {rounds}", file=sys.stderr, flush=True)
    return {
        "overhead_ms_per_site": max(found.values()),
        "overhead_ms_per_site_by_store": found,
        "overhead_sites": given.sites,
        "overhead_client_peak_mb": round(peak_mb(), 1),
    }


def constant_walks() -> None:
    """In a worker: what answers sites says the same of all, and opens only what rows need to know."""
    Classifier.answer = _constant  # type: ignore[method-assign]


def _constant(
    self: Classifier,
    archive: SceneArchive,
    sites: Iterable[Site],
    *,
    seconds: float | None = None,
) -> Iterator[Answer]:
    tiles = (Tile(1, 0, 0), Tile(0, 0, 0), Tile(0, 1, 1))
    looks = tuple(Look(n, min(n, 1), tile, 0 if n else None, 0.5, -0.7, 0.1) for n, tile in enumerate(tiles))
    opened: set[str] = set()
    for site in sites:
        if site.scene_id not in opened:
            opened.add(site.scene_id)
            archive.reader(site.scene_id, self.half_px)
        yield Answer(site.site_id, "a", 0.5, (0.1, 0.0, 0.0), (0.4, 0.3, 0.3), 0.0, Trail(looks), 2304)


PARTS: dict[str, Callable[[argparse.Namespace], Figures]] = {
    "memory": bench_memory,
    "workers": bench_workers,
    "overhead": bench_overhead,
}


def main(given: argparse.Namespace) -> Figures:
    """Every part one after the other."""
    given.folder.mkdir(parents=True, exist_ok=True)
    figures = machine("scaling") | {"rounds": given.rounds}
    for name in given.only:
        print(f"{name} ...", file=sys.stderr, flush=True)
        figures |= PARTS[name](given)
        print(json.dumps(figures), file=sys.stderr, flush=True)
    return figures


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", action="store_true", help="the only form there is")
    parser.add_argument("--only", type=lambda text: text.split(","), default=list(PARTS))
    parser.add_argument("--folder", type=Path, help="where pyramids are kept; by default they are not")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--sites", type=int, default=100_000, help="tiny ones")
    parser.add_argument("--real-sites", type=int, default=REAL_SITES, help="of two workers and one")
    arguments = parser.parse_args()
    if arguments.folder:
        print(json.dumps(main(arguments), indent=2))
    else:
        with tempfile.TemporaryDirectory() as temporary:
            arguments.folder = Path(temporary)
            print(json.dumps(main(arguments), indent=2))
