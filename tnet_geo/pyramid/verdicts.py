"""What every installed reader makes of an archive: pixels, CRS, transform and overviews, right or wrong."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tensorstore as ts
from numpy.typing import NDArray
from pyproj import CRS

from tnet_geo.grid import Window
from tnet_geo.pyramid.archive import open_built
from tnet_geo.pyramid.foreign import READERS, Place, Reader, Seen, Unsuited, version_of
from tnet_geo.pyramid.inventory import Inventory, Item, items_of, read_inventory
from tnet_geo.pyramid.layout import SceneLayout
from tnet_geo.pyramid.places import Store
from tnet_geo.pyramid.store import open_store

__all__ = ["ASPECTS", "NOT_OFFERED", "RIGHT", "ReadersReport", "Verdict", "check_readers", "verdict_on"]

ASPECTS = ("pixels", "crs", "transform", "overviews")
RIGHT = "right"
WRONG = "wrong"
NOT_OFFERED = "not offered"

WINDOW_PX = 512
"""Side of what is compared of every level, in its middle: any shard, bounded memory."""
LOOKED_THROUGH = 1000
"""Scenes among which those that differ in kind are looked for."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """One reader on one scene. Each aspect is `right`, `wrong` or `not offered`."""

    reader: str
    version: str | None
    """None: it is not installed."""
    scene: str
    pixels: str = NOT_OFFERED
    """Of the native level."""
    crs: str = NOT_OFFERED
    transform: str = NOT_OFFERED
    """Of every level."""
    overviews: str = NOT_OFFERED
    """That it finds every level, and what pixels it reads there."""
    note: str = ""
    """What it said, or why it was not asked."""


@dataclass(frozen=True, slots=True)
class ReadersReport:
    """A table of verdicts. `exit_code` is 5 if something that is promised is wrong."""

    archive: str
    verdicts: tuple[Verdict, ...]
    broken: tuple[str, ...]
    """Promises that are not kept, one line each."""

    @property
    def exit_code(self) -> int:
        """0 if every promise is kept, 5 otherwise."""
        return 5 if self.broken else 0

    def lines(self) -> list[str]:
        """The table, and what is broken."""
        head = ("scene", "reader", "version", *ASPECTS, "note")
        rows = [head, *(_row(verdict) for verdict in self.verdicts)]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]
        if not self.verdicts:
            lines = [f"{self.archive}: no scene to open"]
        return [*lines, *self.broken] if self.broken else [*lines, "every reader sees what it is promised"]


def _row(verdict: Verdict) -> tuple[str, ...]:
    if verdict.version is None:
        return verdict.scene, verdict.reader, "not installed", "", "", "", "", verdict.note
    aspects = (getattr(verdict, aspect) for aspect in ASPECTS)
    return verdict.scene, verdict.reader, verdict.version, *aspects, verdict.note


def check_readers(archive: str | Path, *, scenes: int = 3) -> ReadersReport:
    """Open a few scenes of an archive with every reader that is installed, and compare.

    The scenes are chosen to differ: with and without georeference, mask, overviews, by dtype. Of every
    level a window is read; a reader is right if all its pixels are those stored.

    Raises:
        InvalidArchive: there is no archive of ours.
        PlaceUnusable: its place does not answer.
    """
    open_built(archive)
    store = open_store(archive)
    verdicts, broken = [], []
    for item, inventory in _various(store, scenes):
        for reader in READERS:
            verdict = verdict_on(reader, store, item, inventory)
            verdicts.append(verdict)
            broken += [
                f"{reader.name}, scene {item.name}: {aspect} {WRONG} ({verdict.note})"
                for aspect in ASPECTS
                if getattr(verdict, aspect) == WRONG and aspect in reader.promised
            ]
    return ReadersReport(store.url, tuple(verdicts), tuple(broken))


def _various(store: Store, count: int) -> Iterator[tuple[Item, Inventory]]:
    """Up to `count` sealed scenes, of as many kinds as there are."""
    kinds: dict[Any, list[tuple[Item, Inventory]]] = {}
    scenes = (item for item in items_of(store) if item.kind == "scene")
    for item, _ in zip(scenes, range(LOOKED_THROUGH), strict=False):
        try:
            inventory = read_inventory(store, item)
        except ValueError:
            continue  # what `check` without --readers names
        if inventory is not None and isinstance(inventory.layout, SceneLayout):
            layout = inventory.layout
            kind = (layout.crs is None, layout.all_valid, layout.dtype, len(layout.shapes) > 1)
            kinds.setdefault(kind, []).append((item, inventory))
    ranked = sorted((at, n, one) for n, group in enumerate(kinds.values()) for at, one in enumerate(group))
    yield from (one for _, _, one in ranked[:count])


def verdict_on(reader: Reader, store: Store, item: Item, inventory: Inventory) -> Verdict:
    """What one reader makes of one scene; whatever it raises is a wrong answer, and noted."""
    version, layout = version_of(reader), inventory.layout
    assert isinstance(layout, SceneLayout)
    if version is None:
        return Verdict(reader.name, None, item.name)
    place = Place(store.at(*item.folder.split("/")), layout)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what others warn of is not for our users
        try:
            seen = reader.see(place)
        except Unsuited as error:
            return Verdict(reader.name, version, item.name, note=str(error))
        except Exception as error:  # noqa: BLE001  any library may raise anything
            wrong = dict.fromkeys(reader.promised, WRONG)
            return Verdict(reader.name, version, item.name, note=_said(error), **wrong)
        notes: dict[str, str] = {}
        answers = {aspect: _answer(ask, notes) for aspect, ask in _questions(seen, place, inventory).items()}
    return Verdict(reader.name, version, item.name, note="; ".join(notes), **answers)


def _answer(ask: Callable[[], bool] | None, notes: dict[str, str]) -> str:
    if ask is None:
        return NOT_OFFERED
    try:
        return RIGHT if ask() else WRONG
    except Exception as error:  # noqa: BLE001  any library may raise anything
        notes[_said(error)] = ""
        return WRONG


def _said(error: Exception) -> str:
    """The first line of what was raised, not too long for a table."""
    return f"{type(error).__name__}: {error}".splitlines()[0][:120]


def _questions(seen: Seen, place: Place, inventory: Inventory) -> dict[str, Callable[[], bool] | None]:
    """For every aspect, what says whether it is right."""
    layout, crs, transforms, shapes = place.layout, seen.crs, seen.transforms, seen.shapes
    levels = range(len(layout.shapes))

    def same_pixels(level: int) -> bool:
        assert seen.pixels is not None
        window = _middle(layout.shapes[level])
        names = [array.name for array in inventory.arrays if array.level == level]
        stored = {name: _stored(place, inventory, level, name, window) for name in names}
        found = {name: seen.pixels(level, window, name) for name in names}
        return all(
            np.array_equal(stored[name], found[name], equal_nan=_has_nan(stored[name])) for name in names
        )

    def same_overviews() -> bool:
        assert shapes is not None
        found = tuple(tuple(shape) for shape in shapes()) == layout.shapes
        return found and (seen.pixels is None or all(same_pixels(level) for level in levels))

    return {
        "pixels": (lambda: same_pixels(0)) if seen.pixels else None,
        "crs": (lambda: crs() == (CRS.from_user_input(layout.crs) if layout.crs else None)) if crs else None,
        "transform": (
            (lambda: [_plain(at) for at in transforms()] == [_plain(place.transform(at)) for at in levels])
            if transforms
            else None
        ),
        "overviews": same_overviews if shapes else None,
    }


def _plain(transform: Any) -> tuple[float, ...] | None:
    return None if transform is None else tuple(map(float, transform))


def _has_nan(pixels: NDArray[Any]) -> bool:
    return pixels.dtype.kind == "f"


def _middle(shape: tuple[int, int]) -> Window:
    """A window of at most `WINDOW_PX` a side in the middle of a level."""
    height, width = (min(side, WINDOW_PX) for side in shape)
    return Window((shape[0] - height) // 2, (shape[1] - width) // 2, height, width)


def _stored(place: Place, inventory: Inventory, level: int, name: str, window: Window) -> NDArray[Any]:
    """What is stored there, by the seal's word alone."""
    spec = {
        "driver": "zarr3",
        "kvstore": place.store.kvstore(f"{level}/{name}"),
        "metadata": inventory.layout.array_metadata(level, name),
        "open": True,
        "assume_metadata": True,
        "fill_missing_data_reads": False,
    }
    part = slice(window.row, window.bottom), slice(window.col, window.right)
    pixels: NDArray[Any] = ts.open(spec).result()[(..., *part)].read().result()
    return pixels
