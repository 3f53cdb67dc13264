"""How far our network is from the published one, on the numbers that the published code gave.

python tests/benchmarks/parity.py --runtime folded
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parents[2]))  # run as a script, from anywhere

from tnet_geo.inference import Classifier
from tnet_geo.model import read_bundle
from tnet_geo.operations import import_model

FIXTURES = {
    "forward_448": (448, (2,), slice(None), 2),
    "forward_896": (896, (2, 1), slice(None), 1),
    "forward_896_keep63": (896, (6, 3), slice(1, 2), 1),
}
"""Side of the canvas, keep, which pictures, and which of their pixels."""


def traversal(name: str, parity: Path, bundle: Path, runtime: str) -> dict[str, object]:
    """Largest absolute differences from one fixture, and how many tiles are the same."""
    _, keep, pictures, step = FIXTURES[name]
    with np.load(parity / f"{name}.npz") as file:
        expected = dict(file)
    with np.load(parity / "images.npz") as file:
        canvases = np.ascontiguousarray(file["images_896"][pictures, ::step, ::step])
    loaded = read_bundle(bundle)
    walk = loaded.facts.walk.model_copy(update={"keep": keep})
    found = Classifier(loaded, walk=walk, runtime=runtime).classify(canvases)
    same, shares = 0, [0.0]
    for n, trail in enumerate(found.trails):
        at = 1
        for depth in range(len(keep)):
            share = np.take_along_axis(expected[f"d{depth}_probs"], expected[f"d{depth}_chosen"], axis=1)
            origins = expected[f"d{depth + 1}_origin_yx"].reshape(len(found.trails), -1, 2)[n]
            for origin, published in zip(origins, share.reshape(len(found.trails), -1)[n], strict=True):
                level, row, col, probability = trail[at]
                at += 1
                same += (row * (112 << level), col * (112 << level)) == tuple(origin.tolist())
                shares.append(abs(probability - float(published)))
    return {
        "logits": float(np.abs(found.logits - expected["logits"]).max()),
        "largest_logit": float(np.abs(expected["logits"]).max()),
        "probabilities": max(shares),
        "same_tiles": f"{same} of {sum(len(trail) - 1 for trail in found.trails)}",
    }


def dense(side: int, parity: Path, folder: Path, runtime: str) -> dict[str, object]:
    """The same for the dense baseline at one side."""
    with np.load(parity / "weights_tnet_fmow.npz") as file:
        own = {name: file[name] for name in file.files if name.startswith("feature_extraction/")}
    np.savez(folder / "dense.npz", **own)
    import_model(folder / "dense.npz", "efficientnet-fmow", folder / f"dense{side}", canvas_px=side)
    with np.load(parity / "images.npz") as file:
        canvases = np.ascontiguousarray(file["images_896"][:, :: 896 // side, :: 896 // side])
    found = Classifier(read_bundle(folder / f"dense{side}"), runtime=runtime, batch_looks=1).classify(
        canvases
    )
    with np.load(parity / "dense.npz") as file:
        expected = file[f"logits_{side}"]
    return {
        "logits": float(np.abs(found.logits - expected).max()),
        "largest_logit": float(np.abs(expected).max()),
    }


def main() -> None:
    """Measure everything and print it as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    here = Path(__file__).resolve().parents[3] / "shared" / "parity"
    parser.add_argument("--parity", type=Path, default=here, help="folder of the published numbers")
    parser.add_argument("--runtime", default="folded")
    options = parser.parse_args()
    torch.set_num_threads(1)
    report: dict[str, object] = {"machine": platform.machine(), "torch": torch.__version__}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for fixture, (side, *_) in FIXTURES.items():
            bundle = folder / str(side)
            if not bundle.exists():
                import_model(options.parity / "checkpoint_tnet_fmow", "tnet-fmow", bundle, canvas_px=side)
            report[fixture] = traversal(fixture, options.parity, bundle, options.runtime)
        for side in (224, 448, 896):
            report[f"dense_{side}"] = dense(side, options.parity, folder, options.runtime)
    print(json.dumps({"runtime": options.runtime} | report, indent=2))


if __name__ == "__main__":
    main()
