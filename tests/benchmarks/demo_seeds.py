"""The demo over several seeds: accuracy and cost of walk, root, random walks and dense, as JSON.

python tests/benchmarks/demo_seeds.py OUT [SEED ...]      (default: 0 1 2; about six minutes a seed)
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from statistics import mean

from tnet_geo.demo import run_demo


def main(out: Path, seeds: list[int]) -> dict[str, object]:
    """One demo after the other below `out`; what is there already is not done again."""
    for seed in seeds:
        run_demo(out / f"seed{seed}", seed=seed, say=lambda line: print(line, file=sys.stderr))
    found = [json.loads((out / f"seed{seed}" / "summary.json").read_text()) for seed in seeds]
    names = ("walk", "root", "random", "dense")
    return {
        "benchmark": "demo_seeds",
        "seeds": seeds,
        "accuracy": {name: [round(one[name]["accuracy"], 4) for one in found] for name in names},
        "mean_accuracy": {name: round(mean(one[name]["accuracy"] for one in found), 4) for name in names},
        "tiles": {name: round(mean(one[name]["tiles"] for one in found), 2) for name in names},
        "pixel_fraction": {
            name: round(mean(one[name]["pixel_fraction"] for one in found), 4) for name in names
        },
        "walk_bytes_over_dense": round(
            mean(one["walk"]["bytes"] / one["dense"]["bytes"] for one in found), 4
        ),
        "total_seconds": [one["total_seconds"] for one in found],
        "machine": found[0]["machine"],
    }


if __name__ == "__main__":
    print(json.dumps(main(Path(sys.argv[1]), [int(seed) for seed in sys.argv[2:]] or [0, 1, 2]), indent=2))
