"""Looks per second, and a walk at 896 px against the dense network, as JSON; all ratios from this one run.

python tests/benchmarks/look.py --json [--only walk,best,gain,rates,peak] [--folder FOLDER] [--rounds 7]

Weights are random: the same in the walk and in the dense network. The walk reads its tiles from an archive
on disk (in the page cache, unless said otherwise); the dense network has its pixels in memory. Rivals take
turns, and what counts is the median over rounds of the ratio within a round.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported: one thread, as workers have
os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")

import argparse
import json
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import median

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parents[2]))  # run as a script, from anywhere

from tests.benchmarks.look_rivals import (
    SIDE,
    Contestant,
    archive_of,
    bundles,
    fastest,
    pictures,
    rivalry,
    seconds,
)
from tests.benchmarks.sources import tiled_tiff
from tnet_geo.inference.runtimes import Runtime, prepared
from tnet_geo.model import NetworkSettings, TraversalNetwork
from tnet_geo.model.timm_backbone import timm_library

PEAK_SIDES = (896, 3584, 14336)
BACKBONES = ("efficientnet_b0", "mobilenetv3_small_100", "resnet50", "vit_small_patch16_224")
BATCHES = (1, 8, 32)
GAIN_BATCH = 8
CORES = len(os.sched_getaffinity(0))

Figures = dict[str, object]


def bench_walk(folder: Path, rounds: int) -> Figures:
    """Site after site, batch 1, one process of one thread, the same runtime on both sides."""
    figures: Figures = {}
    ratios = {}
    for runtime in ("folded", "onnx"):
        walk = Contestant("walk", runtime, 1, one_by_one=True)
        ratio, ours, theirs = rivalry(folder, walk, Contestant("dense", runtime, 1), rounds=rounds)
        ratios[runtime] = round(ratio, 2)
        figures[f"walk_896_b1_ms_{runtime}"] = {"walk": round(1e3 * ours, 1), "dense": round(1e3 * theirs, 1)}
    cold, _, _ = rivalry(folder, walk, Contestant("dense", "onnx", 1), rounds=rounds, cold=True)
    return {
        "walk_vs_dense_896_b1": ratios["folded"],  # what both are computed by unless one asks otherwise
        "walk_vs_dense_896_b1_by_runtime": ratios,
        "walk_vs_dense_896_b1_onnx_cold_disk": round(cold, 2),
        **figures,
    }


def bench_best(folder: Path, rounds: int) -> Figures:
    """Each at its best batch size, memory layout and runtime; a process for every core, as workers are."""
    figures = _best(folder, rounds, "cpu", CORES)
    if torch.cuda.is_available():
        figures |= _best(folder, rounds, "cuda", 1)
    return figures


def _best(folder: Path, rounds: int, device: str, processes: int) -> Figures:
    cpu = device == "cpu"
    runtimes: list[Runtime] = ["folded", "onnx"] if cpu else ["folded"]
    precisions = ["float32"] if cpu else ["float32", "bfloat16"]
    kinds = [(runtime, precision) for runtime in runtimes for precision in precisions]
    walks = [
        Contestant("walk", runtime, batch, precision=precision, device=device)
        for runtime, precision in kinds
        for batch in ((1, 4) if cpu else (16, 64, 256))
    ]
    denses = [
        Contestant("dense", runtime, batch, layout, precision, device)
        for runtime, precision in kinds
        for batch in ((1, 2) if cpu else (1, 4, 16))
        for layout in (["channels_last"] if runtime == "onnx" else ["channels_last", "contiguous"])
    ]
    walk, ours = fastest(folder, walks, processes)
    dense, theirs = fastest(folder, denses, processes)
    ratio, a, b = rivalry(folder, walk, dense, rounds=rounds, processes=processes)
    key = "walk_vs_dense_896_best" + ("" if cpu else "_cuda")
    return {
        key: round(ratio, 2),
        f"{key}_contestants": [asdict(walk), asdict(dense)],
        f"{key}_processes": processes,
        f"{key}_ms": {"walk": round(1e3 * a, 1), "dense": round(1e3 * b, 1)},
        f"{key}_ms_of_all": ours | theirs,
    }


def rates(backbones: Sequence[str], batches: Sequence[int], rounds: int) -> dict[str, dict[str, list[float]]]:
    """Seconds per look of every runtime and of timm's plain model, in turns: backbone -> way -> rounds."""
    timm = timm_library()
    found: dict[str, dict[str, list[float]]] = {}
    for name in backbones:
        settings = NetworkSettings(backbone=f"timm/{name}", base_px=224, classes=10, depths=3)
        torch.manual_seed(0)
        network = TraversalNetwork(settings)
        plain = timm.create_model(name, num_classes=0).eval()
        ways: dict[str, torch.nn.Module] = {"timm, NCHW": plain}
        ways["timm, channels_last"] = (
            timm.create_model(name, num_classes=0).eval().to(memory_format=torch.channels_last)
        )
        for runtime in ("eager", "folded", "onnx"):
            ways[runtime] = prepared(network, runtime=runtime).network.backbone
        times: dict[str, list[float]] = {}
        for batch in batches:
            pixels = torch.randn(batch, 3, 224, 224)
            last = pixels.contiguous(memory_format=torch.channels_last)
            with torch.inference_mode():
                for _ in range(rounds + 1):  # the first warms up
                    for way, module in ways.items():
                        given = pixels if way in {"timm, NCHW", "onnx"} else last
                        one = seconds(lambda module=module, given=given: module(given))
                        times.setdefault(f"{way}, batch {batch}", []).append(one / batch)
        found[name] = {way: values[1:] for way, values in times.items()}
    return found


def bench_gain(folder: Path, rounds: int) -> Figures:
    """ONNX Runtime against eager PyTorch channels_last: efficientnet_b0, same batch, same threads."""
    times = rates(["efficientnet_b0"], (1, 4, GAIN_BATCH), rounds)["efficientnet_b0"]

    def gain(way: str, batch: int) -> float:
        eager = times[f"eager, batch {batch}"]
        return round(median(a / b for a, b in zip(eager, times[f"{way}, batch {batch}"], strict=True)), 2)

    return {
        "runtime_gain": gain("onnx", GAIN_BATCH),
        "runtime_gain_batch": GAIN_BATCH,
        "runtime_gain_by_batch": {batch: gain("onnx", batch) for batch in (1, 4, GAIN_BATCH)},
        "folded_gain_by_batch": {batch: gain("folded", batch) for batch in (1, 4, GAIN_BATCH)},
    }


def bench_rates(folder: Path, rounds: int) -> Figures:
    """Looks per second by backbone, batch and runtime, beside timm's plain model."""
    times = rates(BACKBONES, BATCHES, rounds)
    per_second = {
        name: {way: round(1 / median(values), 1) for way, values in ways.items()}
        for name, ways in times.items()
    }
    return {"looks_per_second": per_second}


PEAK = """
import sys
from pathlib import Path
import torch
torch.set_num_threads(1)
from tnet_geo.imagery import Site
from tnet_geo.inference import load_bundle
from tnet_geo.pyramid import open_scenes
folder, archive, scene, runtime = sys.argv[1:]
classifier = load_bundle(Path(folder) / "walk", runtime=runtime)
(answer,) = classifier.answer(open_scenes(archive), [Site(scene, scene, scene)])
peak = Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]
print(len(answer.trail.looks), int(peak) / 1024)
"""


def bench_peak(folder: Path, rounds: int) -> Figures:
    """The highest resident memory of a process that walks one site, by the site's side."""
    peaks: dict[int, float] = {}
    looks: dict[int, int] = {}
    for side in PEAK_SIDES:
        scene = tiled_tiff(folder / f"scene-{side}.tif", side, compress="ZSTD", zstd_level=1)
        archive = archive_of(folder, f"peak-{side}", [scene])
        command = [sys.executable, "-c", PEAK, str(folder), str(archive), scene.stem, "folded"]
        runs = []
        for _ in range(3):
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            count, peak = done.stdout.split()
            runs.append(float(peak))
            looks[side] = int(count)
        peaks[side] = median(runs)
    return {
        "walk_peak_growth": round(max(peaks.values()) / peaks[SIDE], 3),
        "walk_peak_mb": {side: round(peak, 1) for side, peak in peaks.items()},
        "walk_peak_looks": looks,
    }


PARTS: dict[str, Callable[[Path, int], Figures]] = {
    "walk": bench_walk,
    "best": bench_best,
    "gain": bench_gain,
    "peak": bench_peak,
    "rates": bench_rates,
}


def machine() -> Figures:
    """What the figures were measured on."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    cpu = next((line.split(":")[1].strip() for line in lines if "model name" in line), "")
    return {
        "benchmark": "look",
        "date": time.strftime("%Y-%m-%d"),
        "machine": f"{cpu or platform.machine()}, {CORES} usable cores",
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "threads_per_process": torch.get_num_threads(),
        "load_before": round(os.getloadavg()[0], 1),
        "versions": {"torch": torch.__version__, "numpy": np.__version__},
    }


def main(only: list[str], folder: Path, rounds: int) -> Figures:
    """Every part one after the other."""
    bundles(folder)
    archive_of(folder, "896", pictures(folder))
    figures = machine()
    for name in only:
        print(f"{name} ...", file=sys.stderr, flush=True)
        figures |= PARTS[name](folder, rounds)
        print(json.dumps(figures), file=sys.stderr, flush=True)
    return figures


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="the only form there is")
    parser.add_argument("--only", type=lambda text: text.split(","), default=list(PARTS))
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--rounds", type=int, default=7)
    arguments = parser.parse_args()
    if arguments.folder:
        arguments.folder.mkdir(parents=True, exist_ok=True)
        print(json.dumps(main(arguments.only, arguments.folder, arguments.rounds), indent=2))
    else:
        with tempfile.TemporaryDirectory() as name:
            print(json.dumps(main(arguments.only, Path(name), arguments.rounds), indent=2))
