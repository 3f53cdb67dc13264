"""`mlm.json` is a STAC item that other people's libraries take, and it says what the bundle says."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path
from typing import Any

import pystac
import pytest
from jsonschema import Draft7Validator
from pystac.extensions.mlm import MLMExtension
from pystac.validation.local_validator import get_local_schema_cache
from referencing import Registry, Resource
from stac_model.schema import MLModelExtension, MLModelProperties

from tests.networks import small_bundle
from tnet_geo.model import Bundle
from tnet_geo.model.counting import parameters
from tnet_geo.model.mlm import MLM_SCHEMA


def item_of(folder: Path, bundle: Bundle | None = None) -> dict[str, Any]:
    item: dict[str, Any] = json.loads(
        ((bundle or small_bundle(4)).save(folder / "bundle") / "mlm.json").read_text("utf-8")
    )
    return item


def with_facts(**facts: object) -> Bundle:
    bundle = small_bundle(4)
    return dataclasses.replace(bundle, facts=bundle.facts.model_copy(update=facts))


def test_the_item_is_valid_stac(tmp_path: Path) -> None:
    schemas = get_local_schema_cache()
    registry: Registry[Any] = Registry().with_resources(
        [(uri, Resource.from_contents(schema)) for uri, schema in schemas.items()]
    )
    schema = next(schema for uri, schema in schemas.items() if uri.endswith("/item.json"))
    validator = Draft7Validator(schema, registry=registry)
    item = item_of(tmp_path)
    assert not [error.message for error in validator.iter_errors(item)]
    assert list(validator.iter_errors({**item, "geometry": None}))  # a box without a geometry


def test_the_item_is_what_stac_model_takes(tmp_path: Path) -> None:
    item = item_of(tmp_path)
    properties = MLModelProperties(**item["properties"])
    assert MLModelExtension.ext(pystac.Item.from_dict(item)).name == "mlm"
    assert properties.total_parameters == parameters(small_bundle(4).network)
    assert properties.input[0].input.shape == [-1, 3, 32, 32]
    assert [scaling.mean for scaling in properties.input[0].value_scaling] == [120.0] * 3
    assert [scaling.stddev for scaling in properties.input[0].value_scaling] == [60.0] * 3
    assert [(one.value, one.name) for one in properties.output[0].classes] == [(0, "a"), (1, "b"), (2, "c")]


@pytest.mark.parametrize("field", ["mlm:name", "mlm:architecture", "mlm:tasks", "mlm:input", "mlm:output"])
def test_stac_model_would_miss_a_field(tmp_path: Path, field: str) -> None:
    properties = item_of(tmp_path)["properties"]
    del properties[field]
    with pytest.raises(ValueError, match=field):
        MLModelProperties(**properties)


def test_the_item_is_what_pystac_takes(tmp_path: Path) -> None:
    item = pystac.Item.from_dict(item_of(tmp_path))
    assert MLM_SCHEMA in item.stac_extensions
    model = MLMExtension.ext(item)
    assert model.architecture == "Traversal Network on plain"
    assert model.hyperparameters.to_dict()["walk"]["keep"] == [2, 1]
    assert model.output[0].result.shape == [-1, 3]


def test_bands_that_the_input_names_are_described(tmp_path: Path) -> None:
    item = item_of(tmp_path, small_bundle(4, bands=5))
    described = [band["name"] for band in item["properties"]["bands"]]
    assert item["properties"]["mlm:input"][0]["bands"] == described
    assert len(described) == 5
    assert {band["data_type"] for band in item["properties"]["bands"]} == {"uint8"}


def test_assets_are_the_files_of_the_bundle_with_their_sizes_and_digests(tmp_path: Path) -> None:
    item = item_of(tmp_path)
    assert {asset["href"] for asset in item["assets"].values()} == {
        f"./{path.name}" for path in (tmp_path / "bundle").iterdir() if path.name != "mlm.json"
    }
    for name in ("model.safetensors", "golden.npz"):
        content = (tmp_path / "bundle" / name).read_bytes()
        assert item["assets"][name]["file:size"] == len(content)
        assert item["assets"][name]["file:checksum"] == "1220" + hashlib.sha256(content).hexdigest()
    roles = [name for name, asset in item["assets"].items() if "mlm:model" in asset["roles"]]
    assert roles == ["model.safetensors"]


def test_classes_of_any_script_have_a_name_that_machines_take_and_keep_their_own(tmp_path: Path) -> None:
    item = item_of(tmp_path, with_facts(classes=("airport hangar", "Forêt", "水")))
    classes = item["properties"]["mlm:output"][0]["classification:classes"]
    assert [one["name"] for one in classes] == ["airport_hangar", "Foret", "class_2"]
    assert [one["description"] for one in classes] == ["airport hangar", "Forêt", "水"]


def test_what_training_saw_is_said(tmp_path: Path) -> None:
    item = item_of(tmp_path, with_facts(gsd_m=(0.3, 1.5), value_range=(2.0, 250.0), reduction="central"))
    assert item["properties"]["gsd"] == 0.3
    tile = item["properties"]["mlm:input"][0]
    assert "Values seen in training: [2.0, 250.0]." in tile["description"]
    assert "distances seen: [0.3, 1.5] m" in tile["description"]
    assert tile["resize_type"] == "interpolation-linear"
    assert "gsd" not in item_of(tmp_path / "other")["properties"]
