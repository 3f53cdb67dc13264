"""A STAC catalogue becomes one site per item, local ones without the network, remote ones page by page."""

from __future__ import annotations

import builtins
import json
import socket
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pystac
import pytest

from tnet_geo.errors import InvalidDataSet, OutputExists, UsageError
from tnet_geo.imagery import read_manifest
from tnet_geo.imagery.manifest import Site
from tnet_geo.imagery.report import ManifestReport
from tnet_geo.imagery.stac import manifest_from_stac

COG = "image/tiff; application=geotiff; profile=cloud-optimized"
SQUARE = {"type": "Polygon", "coordinates": [[[5, 45], [6, 45], [6, 46], [5, 46], [5, 45]]]}


def asset(href: str, kind: str | None = COG, *roles: str, **more: Any) -> dict[str, Any]:
    return {"href": href, "roles": list(roles)} | ({"type": kind} if kind else {}) | more


def item(
    name: str, assets: dict[str, Any] | None = None, collection: str | None = None, **properties: Any
) -> dict[str, Any]:
    return {
        "type": "Feature",
        "stac_version": "1.0.0",
        "id": name,
        "geometry": SQUARE,
        "bbox": [5, 45, 6, 46],
        "properties": {"datetime": "2024-05-31T10:40:00Z"} | properties,
        "links": [],
        "assets": {"visual": asset(f"./{name}.tif", COG, "visual")} if assets is None else assets,
    } | ({"collection": collection} if collection else {})


def put(path: Path, content: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def catalogue(folder: Path) -> Path:
    """Written by pystac: a catalogue, a collection below it, three items in the collection."""
    root = pystac.Catalog("root", "of all")
    space = pystac.SpatialExtent([[5, 45, 6, 46]])
    time = pystac.TemporalExtent([[None, None]])
    collection = pystac.Collection("harbours", "some", pystac.Extent(space, time))
    root.add_child(collection)
    for n in range(3):
        cover = {"gsd": 0.5 + n, "eo:cloud_cover": 10 * n, "kind": "dock" if n else None}
        collection.add_item(pystac.Item.from_dict(item(f"port-{n}", **cover)))
    root.normalize_and_save(str(folder), pystac.CatalogType.SELF_CONTAINED)
    return folder / "catalog.json"


def made(source: str | Path, out: Path, **options: Any) -> tuple[ManifestReport, tuple[Site, ...]]:
    report = manifest_from_stac(source, out, **options)
    return report, read_manifest(out).sites


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever reaches for the network fails."""

    def refuse(*_: Any) -> None:
        raise AssertionError("a local catalogue reached for the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """An HTTP server on this machine, and the folder that it serves."""
    folder = tmp_path / "served"
    folder.mkdir()

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_: Any) -> None:
            pass

    http = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder)))
    thread = threading.Thread(target=http.serve_forever, args=(0.02,))
    thread.start()
    yield f"http://127.0.0.1:{http.server_address[1]}", folder
    http.shutdown()
    thread.join()
    http.server_close()


@pytest.mark.usefixtures("offline")
def test_a_local_catalogue_is_walked_to_its_items_without_the_network(tmp_path: Path) -> None:
    report, sites = made(catalogue(tmp_path / "stac"), tmp_path / "sites.csv", label="kind")
    assert [site.site_id for site in sites] == ["port-0", "port-1", "port-2"]
    assert [site.label for site in sites] == [None, "dock", "dock"]
    first = sites[0]
    assert first.scene == str(tmp_path / "stac/harbours/port-0/port-0.tif")
    assert (first.date, first.gsd, first.cloud_cover) == ("2024-05-31T10:40:00Z", 0.5, 0)
    assert first.footprint == "POLYGON ((5 45, 6 45, 6 46, 5 46, 5 45))"
    assert all(site.window is None and site.split is None for site in sites)
    assert (report.lacking["label"], report.exit_code) == (1, 0)


@pytest.mark.usefixtures("offline")
def test_items_lists_and_collections_are_taken_too(tmp_path: Path) -> None:
    alone = put(tmp_path / "one.json", item("alone"))
    assert [site.scene for site in made(alone, tmp_path / "a.csv")[1]] == [str(tmp_path / "alone.tif")]
    both = put(tmp_path / "two.json", {"type": "FeatureCollection", "features": [item("b"), item("a")]})
    assert [site.site_id for site in made(both, tmp_path / "b.csv")[1]] == ["b", "a"]
    catalogue(tmp_path / "stac")
    assert len(made(tmp_path / "stac/harbours/collection.json", tmp_path / "c.csv")[1]) == 3


@pytest.mark.usefixtures("offline")
def test_a_published_catalogue_copied_to_the_disk_stays_there(tmp_path: Path) -> None:
    copied = item("alone") | {"links": [{"rel": "self", "href": "https://host/x/alone.json"}]}
    copied["links"] += [{"rel": rel, "href": "https://host/catalog.json"} for rel in ("root", "parent")]
    _, (site,) = made(put(tmp_path / "alone.json", copied), tmp_path / "a.csv")
    assert site.scene == str(tmp_path / "alone.tif")
    onwards = {"type": "Catalog", "stac_version": "1.0.0", "id": "c", "description": "c"}
    onwards["links"] = [{"rel": "child", "href": "https://host/child.json"}]  # type: ignore[assignment]
    with pytest.raises(InvalidDataSet, match="what is local is not followed into the network"):
        made(put(tmp_path / "c.json", onwards), tmp_path / "b.csv")


def test_a_remote_catalogue_gives_the_same_sites_with_remote_scenes(
    tmp_path: Path, server: tuple[str, Path]
) -> None:
    address, folder = server
    catalogue(folder)
    _, sites = made(f"{address}/catalog.json", tmp_path / "remote.csv")
    assert [site.scene for site in sites] == [f"{address}/harbours/port-{n}/port-{n}.tif" for n in range(3)]
    _, local = made(folder / "catalog.json", tmp_path / "local.csv")
    assert [(s.site_id, s.date, s.footprint) for s in sites] == [
        (s.site_id, s.date, s.footprint) for s in local
    ]


def test_pages_of_an_api_are_read_to_the_last(tmp_path: Path, server: tuple[str, Path]) -> None:
    address, folder = server
    about = {
        "type": "Collection",
        "stac_version": "1.0.0",
        "id": "ports",
        "links": [{"rel": "items", "href": "page0.json"}],
    }
    put(folder / "collection.json", about)
    for n in range(3):
        links = [{"rel": "next", "href": f"{address}/page{n + 1}.json"}] if n < 2 else []
        features = [item(f"p{n}", {"data": asset("s3://bucket/a.tif", COG, "data")}, collection="ports")]
        put(folder / f"page{n}.json", {"type": "FeatureCollection", "features": features, "links": links})
    _, sites = made(f"{address}/collection.json", tmp_path / "sites.csv")
    assert [(site.site_id, site.scene) for site in sites] == [
        (f"p{n}", "s3://bucket/a.tif") for n in range(3)
    ]


@pytest.mark.parametrize(
    ("assets", "chosen"),
    [
        ({"a": asset("a.tif", COG, "data"), "b": asset("b.tif", COG, "visual")}, "b"),
        ({"a": asset("a.tif", COG, "data"), "b": asset("b.tif", "image/tiff", "data")}, "a"),
        ({"a": asset("a.tif", COG, "data"), "t": asset("t.png", "image/png", "thumbnail")}, "a"),
        ({"a": asset("a.tif", COG), "m": asset("m.xml", "application/xml", "metadata")}, "a"),
        ({"a": asset("a.tif", None), "m": asset("m.txt", None)}, "a"),
        ({"visual": asset("v.tif", COG), "B02": asset("b.tif", COG)}, "visual"),
        ({"j": asset("j.jp2", "image/jp2", "data")}, "j"),
    ],
)
def test_the_raster_of_an_item_is_chosen_by_role_then_by_being_a_cog(
    tmp_path: Path, assets: dict[str, Any], chosen: str
) -> None:
    _, (site,) = made(put(tmp_path / "i.json", item("one", assets)), tmp_path / "s.csv")
    assert site.scene == str(tmp_path / assets[chosen]["href"])


def test_several_that_could_be_it_are_refused_with_their_keys(tmp_path: Path) -> None:
    bands = {"B02": asset("2.tif", COG, "data"), "B03": asset("3.tif", COG, "data", gsd=20)}
    place = put(tmp_path / "i.json", item("one", bands, gsd=10))
    with pytest.raises(InvalidDataSet, match=r"raster of item one \(B02, B03\): name one with --asset"):
        made(place, tmp_path / "s.csv")
    assert not (tmp_path / "s.csv").exists()
    _, (site,) = made(place, tmp_path / "s.csv", asset="B03")
    assert (site.scene, site.gsd) == (str(tmp_path / "3.tif"), 20)


def test_items_without_the_asset_are_left_out_by_name(tmp_path: Path) -> None:
    features = [item("a"), item("b", {"other": asset("o.tif")}), item("c", {})]
    place = put(tmp_path / "l.json", {"type": "FeatureCollection", "features": features})
    report, sites = made(place, tmp_path / "s.csv", asset="visual")
    assert [site.site_id for site in sites] == ["a"]
    assert [(left.item, left.reason) for left in report.left_out] == [
        ("b", "no_such_asset"),
        ("c", "no_such_asset"),
    ]
    assert report.exit_code == 3
    with pytest.raises(InvalidDataSet, match=r"no item with the asset 'B99'.*\(other, visual\)"):
        made(place, tmp_path / "t.csv", asset="B99")


def test_an_id_that_two_collections_have_is_told_apart_by_them(tmp_path: Path) -> None:
    features = [item("a", collection="x"), item("a", collection="y"), item("b", collection="y")]
    place = put(tmp_path / "l.json", {"type": "FeatureCollection", "features": features})
    _, sites = made(place, tmp_path / "s.csv")
    assert [site.site_id for site in sites] == ["x/a", "y/a", "b"]


def test_splits_are_made_only_when_shares_are_asked_for(tmp_path: Path) -> None:
    features = [item(f"i{n}") for n in range(100)]
    place = put(tmp_path / "l.json", {"type": "FeatureCollection", "features": features})
    report, _ = made(place, tmp_path / "s.csv", val=0.2, test=0.2)
    assert set(report.splits) == {"train", "val", "test"}
    with pytest.raises(UsageError):
        made(place, tmp_path / "t.csv", val=0.8, test=0.3)


def test_odd_geometries_and_times_are_kept_as_far_as_they_go(tmp_path: Path) -> None:
    span = item(
        "span", datetime=None, start_datetime="2024-05-01T00:00:00Z", end_datetime="2024-05-31T00:00:00Z"
    )
    nowhere = item("nowhere") | {"geometry": None}
    nowhere.pop("bbox")
    both_sides = {"type": "MultiPolygon", "coordinates": [SQUARE["coordinates"], SQUARE["coordinates"]]}
    features = [span, nowhere, item("wide", **{"eo:cloud_cover": 140}) | {"geometry": both_sides}]
    place = put(tmp_path / "l.json", {"type": "FeatureCollection", "features": features})
    first, second, third = made(place, tmp_path / "s.csv")[1]
    assert first.date == "2024-05-01T00:00:00Z"
    assert second.footprint is None
    assert third.footprint is not None
    assert third.footprint.startswith("MULTIPOLYGON")
    assert third.cloud_cover is None


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("no json", "cannot be read"),
        ("[]", "holds no JSON object"),
        ({"type": "FeatureCollection", "features": []}, "has no item with a raster"),
        ({"type": "Topology"}, "its type is 'Topology'"),
        (item("a", {}), "has no item with a raster"),
        ({"type": "Feature", "id": "a"}, "cannot be read"),
    ],
)
def test_what_is_no_stac_is_refused(tmp_path: Path, content: Any, said: str) -> None:
    with pytest.raises(InvalidDataSet, match=said) as caught:
        made(put(tmp_path / "x.json", content), tmp_path / "s.csv")
    assert "\n" not in str(caught.value)


def test_missing_files_servers_and_outputs_that_exist_are_refused(
    tmp_path: Path, server: tuple[str, Path]
) -> None:
    with pytest.raises(InvalidDataSet, match=r"absent\.json cannot be read"):
        made(tmp_path / "absent.json", tmp_path / "s.csv")
    with pytest.raises(InvalidDataSet, match="404"):
        made(f"{server[0]}/absent.json", tmp_path / "s.csv")
    (tmp_path / "s.csv").write_text("mine")
    with pytest.raises(OutputExists):
        manifest_from_stac(put(tmp_path / "i.json", item("a")), tmp_path / "s.csv")


def test_without_pystac_the_way_out_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place, real = put(tmp_path / "i.json", item("a")), builtins.__import__

    def without(name: str, *more: Any) -> Any:
        if name == "pystac":
            raise ImportError(f"No module named {name!r}", name=name)
        return real(name, *more)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(InvalidDataSet, match=r"without pystac: pip install 'tnet-geo\[stac\]'"):
        manifest_from_stac(place, tmp_path / "s.csv")
