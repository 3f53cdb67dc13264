"""What an archive holds opens in the software that people have, with the right pixels in the right place."""

from __future__ import annotations

import json

import numpy as np
import xarray
import zarr

from tests.rasters import GEOREFERENCE
from tnet_geo.pyramid import Archive


def test_zarr_python_reads_every_level_as_we_do(archive: Archive) -> None:
    for scene_id in archive.scene_ids():
        reader = archive.reader(scene_id)
        group = zarr.open_group(archive.scenes / scene_id, mode="r")
        assert sorted(group.group_keys()) == [str(level) for level in range(reader.spec.levels)]
        for level in range(reader.spec.levels):
            pixels, validity = reader.read_level(level)
            np.testing.assert_array_equal(np.asarray(group[f"{level}/data"]), pixels)
            assert (f"{level}/valid" in group) == (validity is not None)
            if validity is not None:
                np.testing.assert_array_equal(np.asarray(group[f"{level}/valid"]), validity)


def test_xarray_opens_a_scene_as_a_tree_of_levels(archive: Archive) -> None:
    reader = archive.reader("masked")
    with xarray.open_datatree(
        archive.scenes / "masked", engine="zarr", consolidated=False, chunks=None
    ) as tree:
        for level in range(reader.spec.levels):
            pixels, validity = reader.read_level(level)
            assert tree[str(level)]["data"].dims == ("c", "y", "x")
            np.testing.assert_array_equal(tree[str(level)]["data"].values, pixels)
            np.testing.assert_array_equal(tree[str(level)]["valid"].values, validity)


def test_the_attributes_place_every_level_on_the_same_ground(archive: Archive) -> None:
    attributes = json.loads((archive.scenes / "plain" / "zarr.json").read_text())["attributes"]
    origin = GEOREFERENCE["transform"]
    assert attributes["proj:code"] == "EPSG:32632"
    assert attributes["spatial:bbox"] == [600_000, 5_000_000 - 75, 600_000 + 101.5, 5_000_000]
    assert [entry["uuid"] for entry in attributes["zarr_conventions"]] == [
        "d35379db-88df-4056-af3a-620245f8e347",
        "689b58e2-cf7b-45e0-9fff-9cfc0883d6b4",
        "f17cb550-5864-4468-aeb7-f3180cfb622f",
    ]
    for level, entry in enumerate(attributes["multiscales"]["layout"]):
        assert entry["asset"] == str(level)
        array = json.loads((archive.scenes / "plain" / str(level) / "data" / "zarr.json").read_text())
        for place in (entry, array["attributes"]):
            a, _, c, _, e, f = place["spatial:transform"]
            assert (a, e) == (0.5 * 2**level, -0.5 * 2**level)
            assert (c, f) == (origin.c, origin.f)
            assert tuple(place["spatial:shape"]) == archive.reader("plain").spec.shapes[level]
        assert array["attributes"]["proj:code"] == "EPSG:32632"
        assert array["dimension_names"] == ["c", "y", "x"]
    ome = attributes["ome"]["multiscales"][0]
    assert [axis["name"] for axis in ome["axes"]] == ["c", "y", "x"]
    assert ome["datasets"][2]["path"] == "2/data"
    assert ome["datasets"][2]["coordinateTransformations"] == [
        {"type": "scale", "scale": [1.0, 4.0, 4.0]},
        {"type": "translation", "translation": [0.0, 1.5, 1.5]},
    ]


def test_every_chunk_has_a_checksum_of_its_own(archive: Archive) -> None:
    for path in archive.scenes.glob("*/*/*/zarr.json"):
        (sharding,) = json.loads(path.read_text())["codecs"]
        assert sharding["name"] == "sharding_indexed"
        names = [codec["name"] for codec in sharding["configuration"]["codecs"]]
        assert names == ["bytes", "zstd", "crc32c"]


def test_no_byte_of_a_scene_names_the_folder_that_its_source_lay_in(archive: Archive) -> None:
    for path in archive.scenes.rglob("*.json"):
        assert "harbour" not in path.read_text()
    assert json.loads((archive.scenes / "plain" / "zarr.json").read_text())["attributes"]["tnet_geo"][
        "source"
    ] == ("plain.tif")
