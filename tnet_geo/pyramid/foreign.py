"""Archives as other software sees them: every reader that is installed, against what is stored."""

from __future__ import annotations

import importlib.metadata
import json
import re
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import rasterio
import tensorstore as ts
import zarr
from numpy.typing import NDArray
from obstore.store import S3Store
from pyproj import CRS
from pyproj.exceptions import CRSError

from tnet_geo.grid import Window
from tnet_geo.pyramid.geozarr import level_transform
from tnet_geo.pyramid.layout import SceneLayout
from tnet_geo.pyramid.places import LocalStore, Store

__all__ = ["NOT_OFFERED", "READERS", "Place", "Reader", "Seen", "Unsuited"]

NOT_OFFERED = "not offered"
GDAL_NEEDED = (3, 13)
"""The first that knows zarr v3's shards, multiscales and spatial conventions."""

Affine = tuple[float, float, float, float, float, float]


class Unsuited(Exception):
    """A reader says of itself that it does not open such scenes; the message says why."""


@dataclass(frozen=True, slots=True)
class Place:
    """A stored scene, as other software is told of it."""

    store: Store
    """The scene's folder."""
    layout: SceneLayout

    def zarr_store(self) -> Any:
        """What zarr-python, and all that is built on it, opens."""
        if isinstance(self.store, LocalStore):
            return self.store.url
        bucket, _, prefix = self.store.url.removeprefix("s3://").partition("/")
        return zarr.storage.ObjectStore(
            S3Store(
                bucket,
                prefix=prefix,
                virtual_hosted_style_request=False,
                client_options={"allow_http": True},
            ),
            read_only=True,
        )

    def transform(self, level: int) -> Affine | None:
        """The affine transform of a level; None without georeference."""
        native = self.layout.transform
        return None if native is None else level_transform(native, level)


@dataclass(frozen=True, slots=True)
class Seen:
    """What a reader makes of a scene. None: it does not offer this."""

    pixels: Callable[[int, Window, str], NDArray[Any]] | None = None
    """Of a level, a window and an array, `data` [c, y, x] or `valid` [y, x]."""
    crs: Callable[[], CRS | None] | None = None
    transforms: Callable[[], Sequence[Affine | None]] | None = None
    """Of every level."""
    shapes: Callable[[], Sequence[tuple[int, int]]] | None = None
    """Rows and columns of every level that it finds, the native one first."""


@dataclass(frozen=True, slots=True)
class Reader:
    """One piece of software. `promised` are the aspects that must be right for every scene it opens."""

    name: str
    package: str
    see: Callable[[Place], Seen]
    promised: frozenset[str]


def _zarr_python(place: Place) -> Seen:
    group = zarr.open_group(place.zarr_store(), mode="r")
    return _of_zarr(group)


def _of_zarr(group: zarr.Group) -> Seen:
    """What zarr-python's groups and arrays offer: they hand attributes on and do not read them."""

    def pixels(level: int, window: Window, name: str) -> NDArray[Any]:
        array = group[f"{level}/{name}"]
        return np.asarray(array[(..., *_slices(window))])  # type: ignore[index]

    def shapes() -> list[tuple[int, int]]:
        levels = sorted(int(name) for name in group.group_keys())
        return [_rows_cols(group[f"{level}/data"].shape) for level in levels]  # type: ignore[union-attr]

    return Seen(pixels, shapes=shapes)


def _zarrs(place: Place) -> Seen:
    """zarr-python with the codecs of zarrs, which is written in Rust."""
    pipeline = {"codec_pipeline.path": "zarrs.ZarrsCodecPipeline", "codec_pipeline.strict": True}
    if not isinstance(place.store, LocalStore):
        raise Unsuited("reads folders and http addresses only")
    import zarrs  # noqa: F401, PLC0415  registers its pipeline

    with zarr.config.set(pipeline):
        seen = _zarr_python(place)

    def pixels(level: int, window: Window, name: str) -> NDArray[Any]:
        with zarr.config.set(pipeline):
            assert seen.pixels is not None
            return seen.pixels(level, window, name)

    return Seen(pixels, shapes=seen.shapes)


def _tensorstore(place: Place) -> Seen:
    def opened(level: int, name: str) -> ts.TensorStore:
        # From the metadata on disk, unlike our own reader, which takes the seal's word.
        spec = {"driver": "zarr3", "kvstore": place.store.kvstore(f"{level}/{name}")}
        return ts.open(spec, open=True, read=True).result()

    def pixels(level: int, window: Window, name: str) -> NDArray[Any]:
        return np.asarray(opened(level, name)[(..., *_slices(window))].read().result())

    def shapes() -> list[tuple[int, int]]:
        return [_rows_cols(opened(level, "data").shape) for level in range(len(place.layout.shapes))]

    return Seen(pixels, shapes=shapes)


def _xarray(place: Place) -> Seen:
    import xarray  # noqa: PLC0415

    def tree() -> Any:
        return xarray.open_datatree(place.zarr_store(), engine="zarr", consolidated=False, chunks=None)

    def pixels(level: int, window: Window, name: str) -> NDArray[Any]:
        rows, cols = _slices(window)
        with tree() as opened:
            return np.asarray(opened[str(level)][name].isel(y=rows, x=cols).values)

    def shapes() -> list[tuple[int, int]]:
        with tree() as opened:
            levels = sorted(int(name) for name in opened.children)
            return [_rows_cols(opened[str(level)]["data"].shape) for level in levels]

    return Seen(pixels, shapes=shapes)


def _zarr_cm(place: Place) -> Seen:
    """The conventions' own checker: it validates attributes against their schemas and reads no pixels."""
    import zarr_cm  # noqa: PLC0415

    def attributes(key: str) -> dict[str, Any]:
        content = json.loads(place.store.read(key) or b"{}")["attributes"]
        zarr_cm.validate_all(content)
        return {
            name: value for part in zarr_cm.extract_all(content)[1].values() for name, value in part.items()
        }

    root = attributes("zarr.json")
    layout = root["layout"]

    def crs() -> CRS | None:
        arrays = [attributes(f"{entry['asset']}/data/zarr.json") for entry in layout]
        found = {_named_crs(facts) for facts in (root, *arrays)}
        if len(found) > 1:
            raise ValueError(f"group and arrays name different systems: {found}")
        return found.pop()

    def transforms() -> list[Affine | None]:
        arrays = [attributes(f"{entry['asset']}/data/zarr.json") for entry in layout]
        places = [
            (tuple(entry["spatial:transform"]), tuple(facts["spatial:transform"]))
            for entry, facts in zip(layout, arrays, strict=True)
        ]
        if any(of_group != of_array for of_group, of_array in places):
            raise ValueError("group and arrays lie in different places")
        if place.layout.transform is None:  # pixels then lie in their own native pixels
            return [None if at == (2.0**n, 0, 0, 0, 2.0**n, 0) else at for n, (at, _) in enumerate(places)]
        return [at for at, _ in places]

    return Seen(
        crs=crs,
        transforms=transforms,
        shapes=lambda: [_rows_cols(entry["spatial:shape"]) for entry in layout],
    )


def _rio_tiler(place: Place) -> Seen:
    """rio-tiler's reader of GeoZarr groups; it picks the level by the size of the picture asked for."""
    layout = place.layout
    if layout.crs is None or layout.transform is None:
        raise Unsuited("needs a CRS")
    a, b, _, d, e, _ = layout.transform
    if b or d or a <= 0 or e >= 0:
        raise Unsuited("opens north-up scenes only")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it calls itself experimental
        from rio_tiler.experimental.zarr import GroupReader  # noqa: PLC0415
    reader = GroupReader(zarr.open_group(place.zarr_store(), mode="r"))
    arrays = reader.get_group_metadata()["arrays"]["data"]

    def pixels(level: int, window: Window, name: str) -> NDArray[Any]:
        x, y, col, row = (arrays[level]["transform"][at] for at in (0, 4, 2, 5))
        left, top = col + x * window.col, row + y * window.row
        box = (left, top + y * window.height, left + x * window.width, top)
        image = reader.part(
            box,
            dst_crs=reader.crs,
            bounds_crs=reader.crs,
            variables=[name],
            height=window.height,
            width=window.width,
        )
        return np.asarray(image.array.data if name == "data" else image.array.data[0])

    return Seen(
        pixels,
        crs=lambda: CRS.from_user_input(reader.crs.to_wkt()),
        transforms=lambda: [tuple(array["transform"])[:6] for array in arrays],
        shapes=lambda: [(array["height"], array["width"]) for array in arrays],
    )


def _ome_zarr_models(place: Place) -> Seen:
    """The checker of bio-imaging's OME-Zarr 0.5: axes, paths and scales of the levels."""
    from ome_zarr_models import open_ome_zarr  # noqa: PLC0415

    group = zarr.open_group(place.zarr_store(), mode="r")
    image = open_ome_zarr(group, version="0.5").attributes.ome.multiscales[0]

    def shapes() -> list[tuple[int, int]]:
        found = []
        for level, dataset in enumerate(image.datasets):
            first, second = dataset.coordinateTransformations
            scale, shift = list(first.scale), list(second.translation)
            if scale != [1, 2**level, 2**level] or shift != [0, *[(2**level - 1) / 2] * 2]:
                raise ValueError(f"level {level} has scale {scale} and translation {shift}")
            found.append(_rows_cols(group[dataset.path].shape))  # type: ignore[union-attr]
        return found

    return Seen(shapes=shapes)


def _gdal(place: Place) -> Seen:
    """GDAL's Zarr driver through rasterio, level by level. No wheel has a GDAL that could have been tried."""
    found = rasterio.__gdal_version__
    if tuple(map(int, re.findall(r"\d+", found)[:2])) < GDAL_NEEDED:
        raise Unsuited(f"needs GDAL {'.'.join(map(str, GDAL_NEEDED))}, this is {found}")
    if not isinstance(place.store, LocalStore):
        raise Unsuited("is tried on folders only")

    def opened(level: int, name: str = "data") -> Any:
        return rasterio.open(f'ZARR:"{place.store.url}":/{level}/{name}')

    def pixels(level: int, window: Window, name: str) -> NDArray[Any]:
        with opened(level, name) as dataset:
            part = dataset.read(window=((window.row, window.bottom), (window.col, window.right)))
        return np.asarray(part if name == "data" else part[0])

    def each(fact: Callable[[Any], Any]) -> Iterator[Any]:
        for level in range(len(place.layout.shapes)):
            with opened(level) as dataset:
                yield fact(dataset)

    def crs() -> CRS | None:
        (found,) = {dataset and dataset.to_wkt() for dataset in each(lambda dataset: dataset.crs)}
        return CRS.from_user_input(found) if found else None

    return Seen(
        pixels,
        crs=crs,
        transforms=lambda: [tuple(at)[:6] for at in each(lambda dataset: dataset.transform)],
        shapes=lambda: list(each(lambda dataset: dataset.shape)),
    )


_PIXELS = frozenset({"pixels", "overviews"})
_PLACES = frozenset({"crs", "transform", "overviews"})

READERS = (
    Reader("zarr-python", "zarr", _zarr_python, _PIXELS),
    Reader("tensorstore", "tensorstore", _tensorstore, _PIXELS),
    Reader("zarrs", "zarrs", _zarrs, _PIXELS),
    Reader("xarray DataTree", "xarray", _xarray, _PIXELS),
    Reader("zarr-cm", "zarr-cm", _zarr_cm, _PLACES),
    Reader("rio-tiler GeoZarr", "rio-tiler", _rio_tiler, _PIXELS | _PLACES),
    Reader("ome-zarr-models", "ome-zarr-models", _ome_zarr_models, frozenset({"overviews"})),
    Reader("GDAL", "rasterio", _gdal, frozenset()),
)
"""GDAL is promised nothing: the layout could not be tried in a GDAL that reads sharded zarr."""


def version_of(reader: Reader) -> str | None:
    """The installed version; None if it is not installed."""
    if reader.name == "GDAL":
        return str(rasterio.__gdal_version__)
    try:
        return importlib.metadata.version(reader.package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _named_crs(attributes: Mapping[str, Any]) -> CRS | None:
    """The CRS that proj attributes name. Raises: ValueError."""
    keys = [key for key in ("proj:code", "proj:wkt2", "proj:projjson") if key in attributes]
    try:
        return CRS.from_user_input(attributes[keys[0]]) if keys else None
    except CRSError as error:
        raise ValueError(str(error)) from error


def _slices(window: Window) -> tuple[slice, slice]:
    return slice(window.row, window.bottom), slice(window.col, window.right)


def _rows_cols(shape: Sequence[int]) -> tuple[int, int]:
    rows, cols = shape[-2:]
    return int(rows), int(cols)
