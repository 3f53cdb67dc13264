"""Where the time of a look goes: processor time of the engine when its backbone takes none.

Processor time, not wall time: what other processes do on the machine hardly changes it.
"""

from __future__ import annotations

import argparse
import cProfile
import pstats
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import torch
from torch import Tensor, nn

from tests.benchmarks.crews import Crew, crews
from tests.benchmarks.engine_rates import CPU_RUNTIMES
from tests.benchmarks.engine_rivals import Rival, answered, work_of
from tests.benchmarks.engine_scenes import archive_of, bundle_of, sites_of
from tests.benchmarks.machine import Figures
from tnet_geo.inference import Classifier, load_bundle
from tnet_geo.model.backbone import Backbone
from tnet_geo.pyramid import open_scenes

STEPS = {
    "open a scene and check it": ("classifier.py", "task_of"),
    "ask for tiles": ("reader.py", "submit"),
    "fill a batch": ("passes.py", "fill"),
    "scale": ("network.py", "scale"),
    "lay out for the backbone": ("~", "<method 'contiguous' of 'torch._C.TensorBase' objects>"),
    "position and norm": ("network.py", "place"),
    "candidates": ("walks.py", "candidates"),
    "choose": ("walks.py", "observe"),
    "add up": ("engine.py", "_added_up"),
    "write the answer": ("classifier.py", "answer_of"),
}


class Nothing(nn.Module):
    """A backbone that takes no time; where it sends a walk is arbitrary."""

    def __init__(self, like: Backbone, rows: int) -> None:
        super().__init__()
        self.tap_channels, self.features, self.layout = like.tap_channels, like.features, like.layout
        chance = torch.Generator().manual_seed(0)
        self._tap = torch.randn(rows, like.tap_channels, 14, 14, generator=chance)
        self._end = torch.randn(rows, like.features, generator=chance)

    def forward(self, pixels: Tensor, depth: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """See `Backbone`."""
        return self._tap[: len(pixels)], self._end[: len(pixels)]


def bench_profile(given: argparse.Namespace) -> Figures:
    """Milliseconds a look of the looks alone, by runtime, and of everything but the backbone, by step."""
    folder: Path = given.folder
    archive = archive_of(folder, given.side, given.sites)
    sites = tuple(sites_of(given.side, given.sites))
    looks = {}
    with crews() as at_work:
        for runtime in CPU_RUNTIMES:
            crew = Crew(work_of, Rival("memory", str(bundle_of(folder)), str(archive), sites, runtime))
            at_work.append(crew)
            turns = [crew.turn() for _ in range(given.rounds)]
            looks[runtime] = round(median(1e3 * turn.cpu_seconds / turn.units for turn in turns), 2)
        crew = Crew(_beside, folder, given.side, given.sites)
        at_work.append(crew)
        turns = [crew.turn() for _ in range(given.rounds)]
    main, steps = _by_step(folder, given.side, given.sites)
    return {
        "cpu_ms_a_look_in_memory": looks,
        "cpu_ms_a_look_beside_backbone": round(
            median(1e3 * turn.cpu_seconds / turn.units for turn in turns), 2
        ),
        "cpu_ms_a_look_beside_backbone_main_thread": main,
        "cpu_ms_a_look_by_step": steps,
    }


def _without_backbone(folder: Path) -> Classifier:
    classifier = load_bundle(folder / "bundle")
    network = classifier.engine.network
    network._modules["backbone"] = Nothing(network.backbone, classifier.engine.passes.batch_looks)
    return classifier


def _beside(folder: Path, side: int, scenes: int) -> Callable[[object], int]:
    """The engine with that backbone."""
    classifier, sites = _without_backbone(folder), sites_of(side, scenes, 4 * scenes)

    def work(_: object) -> int:
        archive = open_scenes(folder / f"archive-{side}")
        return sum(len(answer.trail) for answer in answered(classifier.answer(archive, sites)))

    work(None)
    return work


def _by_step(folder: Path, side: int, scenes: int) -> tuple[float, dict[str, float]]:
    """Of the main thread: all of it, and what of it is in each step, those that it calls included.

    A profiler is at work in the second, so that steps of many small calls look dearer than they are.
    """
    torch.set_num_threads(1)
    work = _beside(folder, side, scenes)
    begun = time.thread_time()
    looks = work(None)
    main = 1e3 * (time.thread_time() - begun) / looks
    profile = cProfile.Profile(time.thread_time)
    looks = profile.runcall(work, None)
    stats = pstats.Stats(profile).stats  # type: ignore[attr-defined]
    found = {}
    for name, (file, function) in STEPS.items():
        seconds = sum(
            row[3] for (path, _, called), row in stats.items() if path.endswith(file) and called == function
        )
        found[name] = round(1e3 * seconds / looks, 3)
    return round(main, 2), found
