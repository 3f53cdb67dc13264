"""A run without a network: small scenes, plausible walks over them, and their results on disk."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from tnet_geo.grid import Tile, Window, children, footprint, root_of
from tnet_geo.pyramid import MemoryReader
from tnet_geo.results import PredictionRow, RunRecord, finish_run, write_part
from tnet_geo.trail import Answer, Failure, Look, Trail

CLASSES = ("airfield", "depot", "nursery", "quarry", "sports_ground")
HALF_PX = 32
KEEP = (2, 1, 1)
UTM = "EPSG:32633"


@dataclass(frozen=True)
class Scenes:
    """Readers by scene, as an archive has them."""

    readers: dict[str, MemoryReader]

    def reader(self, scene_id: str, half_px: int | None = None) -> MemoryReader:
        return self.readers[scene_id]


def smooth(rng: np.random.Generator, side: int, cells: int) -> NDArray[np.float32]:
    """A field between 0 and 1 that varies over side / cells pixels."""
    field = cv2.resize(rng.random((cells, cells), np.float32), (side, side), interpolation=cv2.INTER_CUBIC)
    return np.asarray(field, np.float32)


def land(seed: int, side: int = 512) -> tuple[NDArray[np.uint8], tuple[int, int]]:
    """Fields, a wood, a road and a yard [3, side, side], and the centre (row, col) of the yard."""
    rng = np.random.default_rng(seed)
    picture = np.empty((side, side, 3), np.float32)
    picture[:] = (124, 136, 92)
    for _ in range(14):
        colour = np.array([118, 128, 84]) + rng.normal(0, 18, 3)
        box = cv2.boxPoints(
            (tuple(rng.uniform(0, side, 2)), tuple(rng.uniform(60, 200, 2)), rng.uniform(0, 90))
        )
        cv2.fillPoly(picture, [box.astype(np.int32)], colour.tolist(), cv2.LINE_AA)
    wood = smooth(rng, side, 6) > 0.62
    picture[wood] = np.array([52, 78, 48]) + 26 * smooth(rng, side, 128)[wood][:, None]
    ends = rng.uniform(0, side, 2).astype(int)
    cv2.line(picture, (0, int(ends[0])), (side, int(ends[1])), (172, 168, 158), 9, cv2.LINE_AA)
    row, col = (int(at) for at in rng.uniform(90, side - 90, 2))
    cv2.rectangle(picture, (col - 40, row - 32), (col + 40, row + 32), (168, 158, 140), -1, cv2.LINE_AA)
    for n in range(4):
        at = (col - 26 + 17 * n, row - 6 + 12 * (n % 2))
        cv2.rectangle(picture, at, (at[0] + 9, at[1] + 9), [(206, 84, 60), (70, 96, 160)][n % 2], -1)
    noise = rng.normal(0, 5, picture.shape) + 12 * (smooth(rng, side, 64) - 0.5)[..., None]
    return np.clip(picture + noise, 0, 255).astype(np.uint8).transpose(2, 0, 1).copy(), (row, col)


def walk_to(target: tuple[int, int], window: Window, seed: int) -> Trail:
    """A walk that prefers the tiles whose centre is nearest to `target` (row, col)."""
    rng = np.random.default_rng(seed)
    root = root_of(window, HALF_PX)
    looks = [Look(0, 0, root, None, 1.0, 0.0, float(rng.normal(0, 0.3)))]
    parents = [looks[0]]
    for depth, keep in enumerate(KEEP[: root.level], start=1):
        found: dict[Tile, Look] = {}
        for parent in parents:
            candidates = [tile for tile in children(parent.tile) if window.touches(footprint(tile, HALF_PX))]
            away = [distance(tile, target) / (HALF_PX << tile.level) for tile in candidates]
            scores = np.exp(-2.5 * np.array(away) + rng.normal(0, 0.4, len(away)))
            for tile, share in zip(candidates, scores / scores.sum(), strict=True):
                path = parent.path_log_probability + math.log(share)
                found.setdefault(tile, Look(0, depth, tile, parent.order, float(share), path, 0.0))
        best = sorted(found.values(), key=lambda look: -look.path_log_probability)[:keep]
        parents = [
            Look(
                len(looks) + n,
                look.depth,
                look.tile,
                look.parent,
                look.probability,
                look.path_log_probability,
                float(rng.normal(0.7 * depth, 0.5)),
            )
            for n, look in enumerate(best)
        ]
        looks += parents
    return Trail(tuple(looks))


def distance(tile: Tile, target: tuple[int, int]) -> float:
    """From a tile's centre to a place, in native pixels."""
    ground = footprint(tile, HALF_PX)
    return math.dist((ground.row + ground.height / 2, ground.col + ground.width / 2), target)


def answer_of(site_id: str, trail: Trail, label: str, seed: int) -> Answer:
    """An answer whose evidence adds up."""
    rng = np.random.default_rng(seed)
    bias = 0.1
    best = CLASSES.index(label)
    logit = bias + sum(look.evidence for look in trail.looks)
    logits = logit - rng.uniform(1, 4, len(CLASSES))
    logits[best] = logit
    shares = np.exp(logits - logits.max())
    shares /= shares.sum()
    return Answer(
        site_id=site_id,
        label=label,
        confidence=float(shares[best]),
        logits=tuple(map(float, logits)),
        probabilities=tuple(map(float, shares)),
        bias=bias,
        trail=trail,
        bytes_decoded=len(trail) * 4 * HALF_PX**2 * 3,
    )


def row_of(n: int, target: tuple[int, int], *, georeferenced: bool = True) -> PredictionRow:
    """Site number `n`: a whole scene of 512 pixels; every seventh answer is wrong."""
    expected = CLASSES[n % len(CLASSES)]
    label = CLASSES[(n + 2) % len(CLASSES)] if n % 7 == 3 else expected
    window = Window(0, 0, 512, 512)
    trail = walk_to(target, window, seed=1000 + n)
    return PredictionRow(
        answer=answer_of(f"{expected}/{n:04}", trail, label, seed=2000 + n),
        scene_id=f"scene-{n:04}",
        window=window,
        half_px=HALF_PX,
        expected=expected,
        split="test",
        crs=UTM if georeferenced else None,
        transform=(0.5, 0.0, 500_000.0 + 400 * n, 0.0, -0.5, 5_600_000.0) if georeferenced else None,
    )


def record_of(run: str, answered: int, set_aside: int, finished: str = "2026-11-21T10:00:00Z") -> RunRecord:
    """The record of a run whose numbers are these."""
    return RunRecord(
        id=run,
        finished=finished,
        classes=CLASSES,
        archive="demo/archive",
        bundle="demo/runs/first/bundle",
        manifest="demo/sites.parquet",
        split="test",
        selected=answered + set_aside,
        answered=answered,
        set_aside=set_aside,
        seconds=12.5,
        settings={"keep": list(KEEP), "base_px": 2 * HALF_PX},
        versions={"tnet-geo": "0.1.0", "python": "3.11.9", "torch": "2.13.0"},
    )


def make_results(folder: Path, sites: int, run: str = "first") -> tuple[Path, Scenes]:
    """A finished run over `sites` scenes in two parts, one site of each set aside; and its scenes."""
    readers, rows = {}, []
    for n in range(sites):
        pixels, target = land(n)
        rows.append(row_of(n, target))
        readers[rows[-1].scene_id] = MemoryReader.of(pixels, HALF_PX)
    half = sites // 2
    lost = [Failure(f"lost/{n}", f"Scene lost-{n}, a tile cannot be read: <b>damaged</b>.") for n in range(2)]
    write_part(folder, run, "a", rows[:half], lost[:1])
    write_part(folder, run, "b", rows[half:], lost[1:])
    finish_run(folder, record_of(run, sites, 2))
    return folder, Scenes(readers)
