"""A walk at 896 px and the dense network, each in processes of its own, taking turns."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median

import rasterio
import torch

from tests.benchmarks.sources import GEOREFERENCE, patch
from tnet_geo.imagery import Site, write_manifest
from tnet_geo.inference import Classifier
from tnet_geo.inference.runtimes import Precision, Runtime, prepared
from tnet_geo.model import Bundle, BundleFacts, TraversalNetwork, read_bundle
from tnet_geo.model.named import named_model
from tnet_geo.operations import build_archive
from tnet_geo.pyramid import open_scenes
from tnet_geo.trail import Answer

SIDE, SITES = 896, 8


@dataclass(frozen=True)
class Contestant:
    """One way to answer sites of 896 px."""

    kind: str
    """`walk` or `dense`."""
    runtime: Runtime
    batch: int
    layout: str = "channels_last"
    precision: Precision = "float32"
    device: str = "cpu"
    one_by_one: bool = False
    """Each site is asked for when the one before is answered."""


def seconds(work: Callable[[], object]) -> float:
    """Wall time of one call."""
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


def pictures(folder: Path) -> list[Path]:
    """GeoTIFFs of 896 px."""
    paths = [folder / f"site-{n}.tif" for n in range(SITES)]
    for n, path in enumerate(paths):
        if not path.exists():
            shape = {"width": SIDE, "height": SIDE, "count": 3, "dtype": "uint8"}
            with rasterio.open(path, "w", driver="GTiff", **shape, **GEOREFERENCE) as target:
                target.write(patch(n)[:, :SIDE, :SIDE])
    return paths


def archive_of(folder: Path, name: str, scenes: Sequence[Path]) -> Path:
    """Their pyramids."""
    archive = folder / f"archive-{name}"
    if not archive.exists():
        sites = [Site(scene.stem, str(scene), scene.stem) for scene in scenes]
        build_archive(write_manifest(sites, folder / f"{name}-{os.getpid()}.parquet"), archive, workers=1)
    return archive


def bundles(folder: Path) -> None:
    """TNet for fMoW as published and the dense network, with the same random backbone and classifier."""
    if (folder / "dense").exists():
        return
    torch.manual_seed(0)
    networks = {}
    for kind, name in (("walk", "tnet_fmow"), ("dense", "efficientnet_fmow")):
        named = named_model(name)
        networks[kind] = TraversalNetwork(named.network).eval()
        for part in ("backbone", "classifier"):
            networks[kind].get_submodule(part).load_state_dict(
                networks["walk"].get_submodule(part).state_dict()
            )
        facts = BundleFacts(classes=named.classes, network=named.network, walk=named.walk)
        Bundle(facts, networks[kind]).save(folder / kind, replace=True)


def walk_work(folder: Path, one: Contestant) -> Callable[[], object]:
    """Answers all sites of the archive."""
    classifier = Classifier(
        read_bundle(folder / "walk"),
        runtime=one.runtime,
        batch_looks=8 if one.one_by_one else one.batch,
        pad=not one.one_by_one,
        device=one.device,
        precision=one.precision,
    )
    archive = open_scenes(archive_of(folder, "896", pictures(folder)))
    sites = [Site(scene.stem, str(scene), scene.stem) for scene in pictures(folder)]

    def work() -> None:
        for group in [[site] for site in sites] if one.one_by_one else [sites]:
            for answer in classifier.answer(archive, group):
                if not isinstance(answer, Answer) or len(answer.trail.looks) != 5:
                    raise RuntimeError(f"no walk of five looks: {answer}")

    return work


def dense_work(folder: Path, one: Contestant) -> Callable[[], object]:
    """Answers all sites from their pixels in memory."""
    device = torch.device(one.device)
    network = prepared(
        read_bundle(folder / "dense").network, runtime=one.runtime, device=device, precision=one.precision
    ).network
    if one.layout == "contiguous":
        network.backbone.to(memory_format=torch.contiguous_format)
        network.backbone.layout = torch.contiguous_format
    images = []
    for path in pictures(folder):
        with rasterio.open(path) as source:
            images.append(torch.from_numpy(source.read()))
    everywhere = torch.full((1, SIDE, SIDE), 255, dtype=torch.uint8, device=device)

    @torch.inference_mode()
    def work() -> None:
        for start in range(0, SITES, one.batch):
            pixels = torch.stack(images[start : start + one.batch]).to(device)
            _, end = network.encode(
                network.scale(pixels, everywhere), torch.zeros(len(pixels), dtype=torch.long, device=device)
            )
            network.classifier(end).cpu()

    return work


def _serve(folder: Path, one: Contestant, pipe: Connection) -> None:
    """In a process of its own: all sites once for every message."""
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    work = (walk_work if one.kind == "walk" else dense_work)(folder, one)
    work()
    pipe.send("ready")
    while pipe.recv():
        work()
        pipe.send("done")


class Team:
    """Processes that all answer all sites when it is their turn."""

    def __init__(self, folder: Path, one: Contestant, processes: int) -> None:
        self.contestant = one
        context = get_context("spawn")
        self._pipes: list[Connection] = []
        self._processes = []
        for _ in range(processes):
            ours, theirs = context.Pipe()
            process = context.Process(target=_serve, args=(folder, one, theirs), daemon=True)
            process.start()
            self._pipes.append(ours)
            self._processes.append(process)
        self._gather()

    def _gather(self) -> None:
        for pipe, process in zip(self._pipes, self._processes, strict=True):
            while not pipe.poll(1):
                if not process.is_alive():
                    raise RuntimeError(f"{self.contestant} has died")
            pipe.recv()

    def turn(self) -> float:
        """Seconds per site, all processes taken together."""

        def work() -> None:
            for pipe in self._pipes:
                pipe.send(True)
            self._gather()

        return seconds(work) / (SITES * len(self._pipes))

    def dismiss(self) -> None:
        """End the processes."""
        for pipe, process in zip(self._pipes, self._processes, strict=True):
            pipe.send(False)
            process.join()


def rivalry(
    folder: Path, walk: Contestant, dense: Contestant, *, rounds: int, processes: int = 1, cold: bool = False
) -> tuple[float, float, float]:
    """Dense over walk, and seconds per site of walk and dense."""
    ours, theirs = Team(folder, walk, processes), Team(folder, dense, processes)
    turns = []
    for _ in range(rounds):
        if cold:
            drop_from_page_cache(folder / "archive-896")
        turns.append((ours.turn(), theirs.turn()))
    for team in (ours, theirs):
        team.dismiss()
    return median(b / a for a, b in turns), median(a for a, _ in turns), median(b for _, b in turns)


def drop_from_page_cache(folder: Path) -> None:
    """As after a restart: what was read or written is read from the disk again."""
    for path in folder.rglob("*"):
        if path.is_file():
            handle = os.open(path, os.O_RDONLY)
            os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(handle)


def fastest(
    folder: Path, candidates: Iterable[Contestant], processes: int
) -> tuple[Contestant, dict[str, float]]:
    """The contestant that needs the least time per site, and milliseconds per site of all."""
    found: dict[Contestant, float] = {}
    for one in candidates:
        team = Team(folder, one, processes)
        found[one] = min(team.turn() for _ in range(2))
        team.dismiss()
        print(f"{name_of(one)}: {1000 * found[one]:.1f} ms a site", file=sys.stderr, flush=True)
    best = min(found, key=lambda one: found[one])
    return best, {name_of(one): round(1000 * value, 1) for one, value in found.items()}


def name_of(one: Contestant) -> str:
    return f"{one.kind} {one.runtime} {one.precision} {one.layout} batch {one.batch}"
