"""A STAC catalogue, collection, item or list of items as a manifest: one site per item, its raster whole.

Items are read with pystac, the extra `stac`, whatever version of STAC they were written in. What is local
stays local: a catalogue on the disk is never followed into the network. Rasters are not opened.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urljoin
from urllib.request import urlopen

import shapely
from shapely.errors import ShapelyError

from tnet_geo.errors import InvalidDataSet, OutputExists
from tnet_geo.imagery.manifest import Site, folder_of, scene_id_of, scene_text, write_manifest
from tnet_geo.imagery.report import LeftOut, ManifestReport, report_of
from tnet_geo.imagery.splits import check_shares, split_of

if TYPE_CHECKING:
    import pystac

__all__ = ["manifest_from_stac"]

ROLES = ("visual", "data")
"""Roles of an asset that is the item's raster, the better first."""
_RASTERS = ("image/tiff", "image/vnd.stac.geotiff", "image/jp2", "image/jpeg", "image/png")
_COG = "profile=cloud-optimized"
_REMOTE = ("http://", "https://")
_TIMEOUT_S = 60
_REMEDY = "name a STAC catalogue, collection, item or list of items"


class _Ambiguous(Exception):
    """Several assets could be an item's raster; the argument names them."""


def manifest_from_stac(
    source: str | Path,
    out: str | Path,
    *,
    asset: str | None = None,
    label: str | None = None,
    val: float = 0.0,
    test: float = 0.0,
) -> ManifestReport:
    """Write the manifest of the items of a STAC catalogue, on the disk or at an http(s) address.

    `asset` names the asset that is the raster of every item. Without it: the one with the role `visual`, or
    else `data`, or else the one raster; among several the one Cloud-Optimised GeoTIFF. `label` names the
    property that is the label. Kept: datetime (start_datetime where it is null), geometry, `gsd` (of the
    asset or of the item), `eo:cloud_cover`. `val` and `test` are shares for splits by a hash of the site's
    id; where both are 0 there are no splits. Items without such a raster are left out and reported.

    Raises:
        InvalidDataSet: pystac is not installed, the source cannot be read, it has no items, several assets of
            an item could be its raster, or no item has one.
        UsageError: the shares are negative or leave nothing to train on.
        OutputExists: `out` is there.
    """
    check_shares(val, test)
    if Path(out).exists():
        raise OutputExists(str(out))
    name = str(source)
    chooser = _Chooser(name, folder_of(out), asset, label)
    found: list[tuple[str | None, Site]] = []
    for item in _items(name):
        try:
            site = chooser.site(item)
        except _Ambiguous as keys:
            what = f"has several assets that could be the raster of item {item.id} ({keys})"
            raise InvalidDataSet(name, what, "name one with --asset") from keys
        if site is not None:
            found.append((item.collection_id, site))
    if not found:
        what = f"has no item with the asset {asset!r}" if asset else "has no item with a raster"
        seen = ", ".join(sorted(chooser.keys)) or "none"
        raise InvalidDataSet(name, what, f"name one of its assets with --asset ({seen})")
    sites = _named(found)
    if val + test > 0:
        sites = [replace(site, split=split_of(site.site_id, val, test)) for site in sites]
    manifest = write_manifest(sites, out)
    return report_of(manifest, lacking=chooser.lacking, left_out=chooser.left_out)


def _items(source: str) -> Iterator[pystac.Item]:
    """Items of whatever the source is, in the order of their links."""
    try:
        import pystac  # noqa: PLC0415 - an extra
    except ImportError as error:
        remedy = "pip install 'tnet-geo[stac]'"
        raise InvalidDataSet(source, f"cannot be read without {error.name}", remedy) from error
    start = source if source.startswith(_REMOTE) else str(Path(source).resolve())
    try:
        for content, place in _documents(start):
            # Links would be followed by pystac to wherever they lead; relative assets need a place alone.
            item = pystac.Item.from_dict(content | {"links": []}, href=place)
            yield item
    except (
        OSError,
        ValueError,
        KeyError,
        TypeError,
        AttributeError,
        pystac.STACError,
        pystac.STACTypeError,
    ) as error:
        cause = " ".join(str(error).split()) or type(error).__name__
        raise InvalidDataSet(source, f"cannot be read ({cause})", _REMEDY) from error


def _documents(start: str) -> Iterator[tuple[dict[str, Any], str]]:
    """Every item below a document as JSON with its place, depth first; pages of lists one after the other."""
    ahead, seen = [start], set[str]()
    while ahead:
        place = ahead.pop()
        if place in seen:
            continue
        seen.add(place)
        content = _read(place)
        if content.get("type") == "Feature":
            yield content, place
            continue
        for feature in content.get("features", ()):
            yield feature, _own_place(feature, place)
        ahead += [_link_place(link, start, place) for link in reversed(_onwards(content))]


def _onwards(content: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Links that lead on from a catalogue, a collection or a page; of an API the list of items."""
    links = [link for link in content.get("links", ()) if "href" in link]
    if content.get("type") == "FeatureCollection":
        # A page that wants a POST belongs to a search, which is asked elsewhere and saved as a file.
        return [link for link in links if link.get("rel") == "next" and link.get("method", "GET") == "GET"]
    if content.get("type") not in {"Catalog", "Collection"} and "stac_version" not in content:
        raise ValueError(f"its type is {content.get('type')!r}")
    below = [link for link in links if link.get("rel") in {"child", "item"}]
    return below or [link for link in links if link.get("rel") == "items"]


def _link_place(link: Mapping[str, Any], start: str, place: str) -> str:
    target: str = urljoin(place, link["href"]) if place.startswith(_REMOTE) else link["href"]
    if target.startswith(_REMOTE) != start.startswith(_REMOTE):
        raise ValueError(f"{place} links to {target}, and what is local is not followed into the network")
    if target.startswith(_REMOTE):
        return target
    return str((Path(place).parent / target.removeprefix("file://")).resolve())


def _own_place(feature: Mapping[str, Any], place: str) -> str:
    """What relative assets of an item in a list are relative to: the item's own address, or the list's."""
    own = (link.get("href", "") for link in feature.get("links", ()) if link.get("rel") == "self")
    return next((href for href in own if href.startswith(_REMOTE) and place.startswith(_REMOTE)), place)


def _read(place: str) -> dict[str, Any]:
    if place.startswith(_REMOTE):
        with urlopen(place, timeout=_TIMEOUT_S) as answer:  # http and https alone get here
            content = json.load(answer)
    else:
        content = json.loads(Path(place).read_bytes())
    if not isinstance(content, dict):
        raise ValueError(f"{place} holds no JSON object")
    return content


@dataclass
class _Chooser:
    """Items in, sites out."""

    source: str
    home: Path
    """Where the manifest will lie."""
    asset: str | None
    label: str | None

    def __post_init__(self) -> None:
        self.keys: set[str] = set()
        self.left_out: list[LeftOut] = []
        self.lacking: Counter[str] = Counter()

    def site(self, item: pystac.Item) -> Site | None:
        """None: the item has no raster, which is noted."""
        self.keys |= item.assets.keys()
        key = self.asset if self.asset is not None else _choose(item)
        if key is None or key not in item.assets:
            self.left_out.append(LeftOut(item.id, "no_raster" if self.asset is None else "no_such_asset"))
            return None
        asset = item.assets[key]
        href = asset.get_absolute_href()
        if href is None:
            self.left_out.append(LeftOut(item.id, "no_place"))
            return None
        scene = href.removeprefix("file://")
        date, label = _date(item), self._label(item)
        footprint = _footprint(item.geometry)
        gsd = _number(asset.extra_fields.get("gsd", item.properties.get("gsd")), least=1e-9)
        cloud = _number(item.properties.get("eo:cloud_cover"), most=100.0)
        self._note(date=date, label=label, footprint=footprint)
        return Site(
            site_id=item.id,
            scene=scene,
            scene_id=scene_id_of(scene_text(scene, self.home)),
            label=label,
            date=date,
            gsd=gsd,
            footprint=footprint,
            cloud_cover=cloud,
        )

    def _label(self, item: pystac.Item) -> str | None:
        if self.label is None:
            return None
        value = item.properties.get(self.label)
        return None if value is None or value == "" else str(value)

    def _note(self, **facts: str | None) -> None:
        for name, value in facts.items():
            self.lacking[name] += value is None and not (name == "label" and self.label is None)


def _choose(item: pystac.Item) -> str | None:
    """Key of the raster of an item; None: there is none.

    Raises:
        _Ambiguous: there are several.
    """
    rasters = {key: asset for key, asset in item.assets.items() if _is_raster(asset)}
    for role in (*ROLES, None):
        keys = [key for key, asset in rasters.items() if role is None or role in (asset.roles or ())]
        # Old catalogues give no roles, but call the picture by its role.
        keys = [role] if role in keys or (not keys and role in rasters) else keys
        cogs = [key for key in keys if _COG in (rasters[key].media_type or "")]
        if len(cogs if cogs else keys) == 1:
            return (cogs if cogs else keys)[0]
        if keys:
            raise _Ambiguous(", ".join(keys))
    return None


def _is_raster(asset: pystac.Asset) -> bool:
    """By its media type, or where it has none by its suffix; previews are none."""
    if set(asset.roles or ()) & {"thumbnail", "overview", "metadata"}:
        return False
    if asset.media_type:
        return asset.media_type.split(";")[0].strip().lower() in _RASTERS
    return asset.href.split("?")[0].lower().endswith((".tif", ".tiff", ".jp2"))


def _date(item: pystac.Item) -> str | None:
    """Datetime as it is written there; the start where the item covers a time."""
    for key in ("datetime", "start_datetime"):
        value = item.properties.get(key)
        if isinstance(value, str):
            return value
    return None if item.datetime is None else item.datetime.isoformat().replace("+00:00", "Z")


def _footprint(geometry: Mapping[str, Any] | None) -> str | None:
    """WKT of a polygon or of several; GeoJSON is OGC:CRS84 already."""
    try:
        shape = shapely.from_geojson(json.dumps(geometry)) if geometry else None
    except ShapelyError:
        return None
    usable = shape is not None and not shape.is_empty and shape.geom_type in {"Polygon", "MultiPolygon"}
    return str(shapely.to_wkt(shape, rounding_precision=9)) if usable else None


def _number(value: Any, least: float = 0.0, most: float = float("inf")) -> float | None:
    usable = isinstance(value, int | float) and not isinstance(value, bool) and least <= value <= most
    return float(value) if usable and value != float("inf") else None


def _named(items: Sequence[tuple[str | None, Site]]) -> list[Site]:
    """Sites of unique names: ids of items that come again in another collection get its name before them."""
    counts = Counter(site.site_id for _, site in items)
    return [
        replace(site, site_id=f"{collection}/{site.site_id}")
        if counts[site.site_id] > 1 and collection
        else site
        for collection, site in items
    ]
