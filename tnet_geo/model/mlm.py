"""A bundle as a STAC item: what catalogues of models search by (`mlm.json`).

Machine Learning Model extension (https://github.com/stac-extensions/mlm). Fields that say where and when a
model is valid are the whole world and all times, as that extension advises where nothing is known.
"""

from __future__ import annotations

import hashlib
import json
import re
import unicodedata
from collections.abc import Mapping
from typing import Any

import torch

from tnet_geo.model.counting import parameters
from tnet_geo.model.facts import BundleFacts
from tnet_geo.model.network import TraversalNetwork

__all__ = ["MLM_SCHEMA", "mlm_content", "mlm_item"]

MLM_SCHEMA = "https://stac-extensions.github.io/mlm/v1.5.2/schema.json"
_FILE_SCHEMA = "https://stac-extensions.github.io/file/v2.1.0/schema.json"
_WORLD = (-180.0, -90.0, 180.0, 90.0)
_TASKS = ["scene-classification", "classification"]
_SHA256_MULTIHASH = "1220"
"""Code of sha256 and its length, before the digest: what the file extension asks for."""

_ASSETS: Mapping[str, Mapping[str, Any]] = {
    "model.safetensors": {
        "title": "Weights",
        "type": "application/octet-stream; application=safetensors; framework=pytorch",
        "roles": ["mlm:model", "mlm:weights"],
        "mlm:artifact_type": "safetensors.torch.save_file",
    },
    "golden.npz": {
        "title": "Looks, and what the network said of them",
        "type": "application/octet-stream; application=numpy",
        "roles": ["data"],
    },
}


def mlm_content(facts: BundleFacts, network: TraversalNetwork, files: Mapping[str, bytes]) -> bytes:
    """The file; equal arguments give equal bytes."""
    return json.dumps(mlm_item(facts, network, files), indent=2, ensure_ascii=False).encode() + b"\n"


def mlm_item(facts: BundleFacts, network: TraversalNetwork, files: Mapping[str, bytes]) -> dict[str, Any]:
    """The item, a dictionary that JSON can take. files: content of each file that it points to."""
    west, south, east, north = _WORLD
    ring = [[west, south], [east, south], [east, north], [west, north], [west, south]]
    return {
        "type": "Feature",
        "stac_version": "1.1.0",
        "stac_extensions": [MLM_SCHEMA, _FILE_SCHEMA],
        "id": f"tnet-geo-{hashlib.sha256(files['model.safetensors']).hexdigest()[:16]}",
        "geometry": {"type": "Polygon", "coordinates": [ring]},
        "bbox": list(_WORLD),
        "properties": _properties(facts, network),
        "links": [],
        "assets": _assets(files, _bands(facts)) | {"bundle.toml": _FACTS},
    }


_FACTS: Mapping[str, Any] = {
    "href": "./bundle.toml",
    "title": "Everything that tnet-geo needs to know of the model",
    "type": "application/toml",
    "roles": ["metadata"],
}


def _bands(facts: BundleFacts) -> list[dict[str, Any]]:
    pixels = facts.network.pixels
    return [{"name": f"band-{number}", "data_type": pixels.dtype} for number in range(1, pixels.bands + 1)]


def _assets(files: Mapping[str, bytes], bands: list[dict[str, Any]]) -> dict[str, Any]:
    assets: dict[str, Any] = {}
    for name, content in files.items():
        assets[name] = {
            "href": f"./{name}",
            **_ASSETS[name],
            "file:size": len(content),
            "file:checksum": _SHA256_MULTIHASH + hashlib.sha256(content).hexdigest(),
        }
    # STAC allows bands of an item only where an asset has them too.
    assets["model.safetensors"]["bands"] = bands
    return assets


def _properties(facts: BundleFacts, network: TraversalNetwork) -> dict[str, Any]:
    settings, walk = facts.network, facts.walk
    bands = _bands(facts)
    found: dict[str, Any] = {
        "datetime": None,
        "start_datetime": "1900-01-01T00:00:00Z",
        "end_datetime": "9999-12-31T23:59:59Z",
        "description": "Looks at a small picture of a whole site, decides where to look closer, and goes on "
        "down to native resolution. To be asked through tnet-geo: `tnet_geo.load_bundle`.",
        "bands": bands,
        "mlm:name": f"tnet-geo {settings.backbone}",
        "mlm:architecture": f"Traversal Network on {settings.backbone}",
        "mlm:tasks": _TASKS,
        "mlm:framework": "PyTorch",
        "mlm:framework_version": torch.__version__,
        "mlm:total_parameters": parameters(network),
        "mlm:accelerator": None,
        "mlm:accelerator_constrained": False,
        "mlm:input": [_input(facts, [band["name"] for band in bands])],
        "mlm:output": [_output(facts)],
        "mlm:hyperparameters": {
            "walk": walk.model_dump(mode="json"),
            "canvas": facts.canvas,
            "reduction": facts.reduction,
            "network": settings.model_dump(mode="json"),
        },
    }
    return found | ({} if facts.gsd_m is None else {"gsd": facts.gsd_m[0]})


def _input(facts: BundleFacts, bands: list[str]) -> dict[str, Any]:
    pixels, side = facts.network.pixels, facts.network.base_px
    seen = "" if facts.value_range is None else f" Values seen in training: {list(facts.value_range)}."
    ground = "" if facts.gsd_m is None else f" Ground sampling distances seen: {list(facts.gsd_m)} m."
    return {
        "name": "tile",
        "description": f"One tile of a site's pyramid. Source pixels are {pixels.dtype}.{seen}{ground}",
        "bands": bands,
        "input": {
            "shape": [-1, len(bands), side, side],
            "dim_order": ["batch", "bands", "height", "width"],
            "data_type": "float32",
        },
        "value_scaling": [
            {"type": "z-score", "mean": mean, "stddev": std}
            for mean, std in zip(pixels.mean, pixels.std, strict=True)
        ],
        "resize_type": "interpolation-area" if facts.reduction == "mean" else "interpolation-linear",
        "pre_processing_function": None,
    }


def _output(facts: BundleFacts) -> dict[str, Any]:
    classes = [
        {"value": value, "name": _machine_name(name, value), "description": name}
        for value, name in enumerate(facts.classes)
    ]
    return {
        "name": "class",
        "description": f"Probabilities of a site's classes: softmax of its logits over {facts.temperature}.",
        "tasks": _TASKS,
        "result": {
            "shape": [-1, len(classes)],
            "dim_order": ["batch", "class"],
            "data_type": "float32",
        },
        "classification:classes": classes,
        "post_processing_function": None,
    }


def _machine_name(name: str, value: int) -> str:
    """Letters, digits, `-` and `_` are all that the classification extension allows.

    >>> _machine_name("Forêt dense", 3), _machine_name("水", 4)
    ('Foret_dense', 'class_4')
    """
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode()
    return re.sub(r"[^0-9A-Za-z_-]+", "_", plain).strip("_") or f"class_{value}"
