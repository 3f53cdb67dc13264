"""The engine against tiles in memory, a simple loop and dense looking, as JSON; all ratios from one run.

python tests/benchmarks/engine.py --json [--only rates,cuda,profile,costs,table] [--folder FOLDER]
    [--rounds 5] [--run DEMO] [--plots docs/images]

Sites are whole scenes of real content (see engine_scenes.py), about 6 GB of pyramids that are made once
and kept in FOLDER. Rivals have processes of their own, one thread for the model, and take turns; what
counts is the median over rounds of the ratio within a round. `table` needs a trained run: the folder of
`tnet-geo demo --out DEMO`.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported: one thread, as workers have
os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")

import argparse
import json
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))  # run as a script, from anywhere

from tests.benchmarks.engine_costs import bench_costs
from tests.benchmarks.engine_plots import plots
from tests.benchmarks.engine_profile import bench_profile
from tests.benchmarks.engine_rates import bench_cuda, bench_rates
from tests.benchmarks.engine_table import bench_table
from tests.benchmarks.machine import Figures, machine

PARTS: dict[str, Callable[[argparse.Namespace], Figures]] = {
    "rates": bench_rates,
    "cuda": bench_cuda,
    "profile": bench_profile,
    "costs": bench_costs,
    "table": bench_table,
}


def main(given: argparse.Namespace) -> Figures:
    """Every part one after the other."""
    given.folder.mkdir(parents=True, exist_ok=True)
    figures = machine("engine") | {"rounds": given.rounds}
    for name in given.only:
        print(f"{name} ...", file=sys.stderr, flush=True)
        figures |= PARTS[name](given)
        print(json.dumps(figures), file=sys.stderr, flush=True)
    if given.plots:
        plots(figures, given.plots)
    return figures


def _numbers(text: str) -> list[int]:
    return [int(part) for part in text.split(",")]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="the only form there is")
    parser.add_argument("--only", type=lambda text: text.split(","), default=list(PARTS))
    parser.add_argument("--folder", type=Path, help="where pyramids are kept; by default they are not")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--sites", type=int, default=32, help="of the rates; the costs have half as many")
    parser.add_argument("--side", type=int, default=1792, help="of the sites of the rates")
    parser.add_argument("--runtimes", type=lambda text: text.split(","), default=["folded", "onnx"])
    parser.add_argument("--batches", type=_numbers, help="sizes that tiles in memory are tried at")
    parser.add_argument("--largest", type=int, default=28_672, help="of the costs, for a quick look at them")
    parser.add_argument("--dense", type=int, default=14_336, help="largest side that is looked at densely")
    parser.add_argument("--stored", action="store_true", help="rates: pyramids alone, one process")
    parser.add_argument("--moto", action="store_true", help="moto as the server of the rates")
    parser.add_argument("--run", type=Path, help="a demo's folder, for the table")
    parser.add_argument("--plots", type=Path, help="folder for the plots")
    arguments = parser.parse_args()
    if arguments.folder:
        print(json.dumps(main(arguments), indent=2))
    else:
        with tempfile.TemporaryDirectory() as temporary:
            arguments.folder = Path(temporary)
            print(json.dumps(main(arguments), indent=2))
