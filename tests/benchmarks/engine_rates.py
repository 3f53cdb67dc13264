"""Looks per second: the engine over a disk, an object store and COGs, a simple loop, and tiles in memory."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from statistics import median

import pytest
import torch

from tests.benchmarks.crews import Crew, Turn, crews
from tests.benchmarks.engine_rivals import Rival, work_of
from tests.benchmarks.engine_scenes import archive_of, bundle_of, cogs_of, listed, sites_of
from tests.benchmarks.late_store import LateStore, late_store
from tests.benchmarks.look_rivals import drop_from_page_cache
from tests.benchmarks.machine import CORES, Figures
from tests.range_server import RangeServer, range_server
from tnet_geo.inference.runtimes import Precision, Runtime

BUCKET = "imagery"
LATENCY_S = 0.05
CPU_BATCHES, CUDA_BATCHES = (2, 4, 8, 16), (64, 128, 256, 512)
CUDA_AGAIN = 64
"""How often a GPU, which is faster, walks every scene in a turn."""
CPU_RUNTIMES: tuple[Runtime, ...] = ("folded", "onnx")
DEFAULT: Runtime = "folded"
TRIALS = 2
COGS = {"cogs_vs_memory": "engine, COGs on disk", "cogs_http_vs_memory": "engine, COGs by HTTP"}

Ways = Mapping[str, Sequence[Turn]]


def bench_rates(given: argparse.Namespace) -> Figures:
    """On the CPU, by runtime; the first one gives the keys, the others stand beside it."""
    by_runtime = {runtime: _rates(given, runtime) for runtime in given.runtimes}
    return {**_keys(by_runtime[given.runtimes[0]], ""), "rates": by_runtime}


def bench_cuda(given: argparse.Namespace) -> Figures:
    """The same on a GPU, by precision; nothing where there is none."""
    if not torch.cuda.is_available():
        return {}
    precisions: tuple[Precision, ...] = ("bfloat16", "float32")
    found = {precision: _rates(given, "folded", "cuda", precision) for precision in precisions}
    return {**_keys(found["bfloat16"], "_cuda"), "rates_cuda": found}


def _keys(figures: Figures, ending: str) -> Figures:
    names = ("engine_vs_memory", "s3_vs_memory", "engine_vs_loop")
    return {f"{name}{ending}": figures[name] for name in names}


def _rates(
    given: argparse.Namespace, runtime: Runtime, device: str = "cpu", precision: Precision = "float32"
) -> Figures:
    folder: Path = given.folder
    local = archive_of(folder, given.side, given.sites)
    again = 1 if device == "cpu" else CUDA_AGAIN
    sites = tuple(sites_of(given.side, given.sites, again * given.sites))
    engine = Rival("engine", str(bundle_of(folder)), str(local), sites, runtime, precision, device)
    memory, trials = _best_of_memory(replace(engine, way="memory"), given.batches)
    with _served(folder, local, moto=given.moto) as (store, server), crews() as at_work:
        remote, cogs = f"s3://{BUCKET}/{local.name}", cogs_of(folder, given.side, given.sites)
        rivals = {
            "memory": memory,
            "engine, disk": engine,
            "loop, disk": replace(engine, way="loop"),
            "engine, s3": replace(engine, archive=remote),
            "loop, s3": replace(engine, archive=remote, way="loop"),
            "engine, COGs on disk": replace(engine, archive=str(cogs)),
            "engine, COGs by HTTP": replace(engine, archive=str(listed(cogs, server.url))),
        }
        rivals = {name: rival for name, rival in rivals.items() if not (given.stored and "COGs" in name)}
        at_work += [Crew(work_of, rival) for rival in rivals.values()]
        ways = dict(zip(rivals, at_work, strict=True))
        order = ["memory", "engine, disk", "engine, cold disk", *list(ways)[2:]]
        turns: dict[str, list[Turn]] = {name: [] for name in order}
        for round_ in range(given.rounds):
            for name, crew in ways.items():
                crew.turn()  # gets back the memory that the system has taken while it waited
                turns[name].append(crew.turn())
            ways["engine, disk"].turn()
            drop_from_page_cache(local)
            turns["engine, cold disk"].append(ways["engine, disk"].turn())
            print(f"  round {round_ + 1}: {_medians(turns)}", file=sys.stderr, flush=True)
        server_s = store.cpu_seconds()
    figures = _figures(turns) | {"memory_batch": memory.batch, "memory_looks_per_second_by_batch": trials}
    figures["s3_server"] = "moto" if given.moto else "late_store"
    figures["s3_server_cpu_seconds"] = round(server_s, 1)
    if device == "cpu" and not given.stored:
        figures |= _each_core(engine, memory, given.rounds)
    return figures


@contextmanager
def _served(folder: Path, archive: Path, *, moto: bool) -> Iterator[tuple[LateStore, RangeServer]]:
    """The archive in an object store, and a server of the COGs, both late; and the environment for them."""
    bucket = folder / "buckets" / BUCKET
    bucket.mkdir(parents=True, exist_ok=True)
    if not (bucket / archive.name).exists():
        (bucket / archive.name).symlink_to(archive.absolute(), target_is_directory=True)
    with (
        late_store(bucket.parent, LATENCY_S, moto=moto) as store,
        range_server(folder, LATENCY_S) as server,
        pytest.MonkeyPatch.context() as patch,
    ):
        for name, value in store.environment.items():
            patch.setenv(name, value)
        yield store, server


def _best_of_memory(rival: Rival, asked: Sequence[int] | None) -> tuple[Rival, dict[int, float]]:
    """Tiles in memory at the batch size that looks at most of them a second; and what all did."""
    sizes = asked or (CPU_BATCHES if rival.device == "cpu" else CUDA_BATCHES)
    found: dict[int, float] = {}
    with crews() as at_work:
        at_work += [Crew(work_of, rival.with_batch(size)) for size in sizes]
        trials = [[crew.turn().rate for crew in at_work] for _ in range(TRIALS)]
    for n, size in enumerate(sizes):
        found[size] = round(max(rates[n] for rates in trials), 1)
    return rival.with_batch(max(found, key=lambda size: found[size])), found


def _each_core(engine: Rival, memory: Rival, rounds: int) -> Figures:
    """A process for every core, as workers are: what is read is decoded on the cores that look."""
    with crews() as at_work:
        at_work += [Crew(work_of, rival, processes=CORES) for rival in (engine, memory)]
        turns = [(at_work[0].turn(), at_work[1].turn()) for _ in range(rounds)]
    ratio = median(a.rate / b.rate for a, b in turns)
    return {"engine_vs_memory_each_core": round(ratio, 3), "each_core_processes": CORES}


def _medians(turns: Ways) -> dict[str, float]:
    return {name: round(median(turn.rate for turn in found), 1) for name, found in turns.items() if found}


def _ratio(turns: Ways, ours: str, theirs: str) -> float:
    """Median over rounds of the ratio within a round."""
    pairs = zip(turns[ours], turns[theirs], strict=True)
    return round(median(a.rate / b.rate for a, b in pairs), 3)


def _figures(turns: Ways) -> Figures:
    return {
        "engine_vs_memory": _ratio(turns, "engine, disk", "memory"),
        "s3_vs_memory": _ratio(turns, "engine, s3", "memory"),
        "engine_vs_loop": _ratio(turns, "engine, disk", "loop, disk"),
        "engine_vs_memory_cold_disk": _ratio(turns, "engine, cold disk", "memory"),
        "loop_s3_vs_memory": _ratio(turns, "loop, s3", "memory"),
        **{key: _ratio(turns, name, "memory") for key, name in COGS.items() if name in turns},
        "looks_per_second": _medians(turns),
        "cpu_ms_a_look": {
            name: round(median(1e3 * turn.cpu_seconds / turn.units for turn in found), 2)
            for name, found in turns.items()
        },
    }
