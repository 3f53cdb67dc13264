"""Tiles straight from COGs against rasterio: local, and over HTTP with every answer 50 ms late.

python tests/benchmarks/cogs.py --folder /tmp/bench
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

import numpy as np
import rasterio
from rasterio.shutil import copy

sys.path.insert(0, str(Path(__file__).parents[2]))  # run as a script, from anywhere

from tests.benchmarks.sources import GEOREFERENCE, tiled_tiff
from tests.range_server import range_server
from tnet_geo.pyramid.reduce import halve

HALF = 112
LOCAL_SIDE, MOSAIC_SIDE, PATCH_SIDE, OVERVIEWS = 8_192, 57_344, 4_096, 7
LOCAL_TILES, HTTP_TILES, AT_ONCE = 2_000, 640, 32
"""Tiles, and how many of them a batch has; four batches are under way, as walks side by side have them."""
RIVAL_HTTP_TILES = 60
ROUNDS = 5
LATENCY_S = 0.05

RATE = """
import json, sys, time
import rasterio
from rasterio.windows import Window
place, reader, half, places = sys.argv[1], sys.argv[2], int(sys.argv[3]), json.loads(sys.argv[4])
at_once = int(sys.argv[5])
if reader == "ours":
    from tnet_geo.grid import Tile
    from tnet_geo.pyramid.cog import CogReader
    begun = time.perf_counter()
    source = CogReader(place, half)
    waiting = []
    for n in range(0, len(places), at_once):
        waiting.append(source.submit([Tile(0, row, col) for row, col in places[n : n + at_once]]))
        if len(waiting) == 4:
            waiting.pop(0).result()
    for batch in waiting:
        batch.result()
else:
    begun = time.perf_counter()
    with rasterio.Env(GDAL_DISABLE_READDIR_ON_OPEN="EMPTY_DIR"), rasterio.open(place) as source:
        for row, col in places:
            source.read(window=Window(col * half, row * half, 2 * half, 2 * half))
print(json.dumps(len(places) / (time.perf_counter() - begun)))
"""

WALK = """
import json, sys
from tnet_geo.grid import Tile
from tnet_geo.pyramid.cog import CogReader
reader = CogReader(sys.argv[1], int(sys.argv[2]))
for look in json.loads(sys.argv[3]):
    reader.read([Tile(*look)])
count = reader.meter.snapshot()
print(json.dumps([reader.spec.levels, count.requests, count.bytes_fetched]))
"""


def cog_of(source: Path, path: Path, **settings: object) -> Path:
    """A COG as GDAL's driver makes it."""
    if not path.exists():
        draft = path.with_name(f"draft-{path.name}")
        with rasterio.Env(GDAL_CACHEMAX=512):
            copy(source, draft, driver="COG", overview_resampling="AVERAGE", num_threads=2, **settings)
        draft.rename(path)
    return path


def mosaic_cog(folder: Path) -> Path:
    """A COG of 57 344 x 57 344 x 3 pixels by GDAL's driver: JPEG, blocks of 512, seven overviews.

    A mosaic of one textured patch. The mosaics of the halved patch are the overviews of the mosaic, so
    that the driver need not make them: 3 GB of temporary files less.
    """
    path = folder / "mosaic.tif"
    if path.exists():
        return path
    with rasterio.open(tiled_tiff(folder / "patch.tif", PATCH_SIDE)) as dataset:
        pixels, profile = dataset.read(), dataset.profile
    vrts = [folder / f"mosaic-{level}.vrt" for level in range(OVERVIEWS + 1)]
    for level, vrt in enumerate(vrts):
        patch = folder / f"patch-{level}.tif"
        with rasterio.open(
            patch, "w", **profile | {"width": pixels.shape[2], "height": pixels.shape[1]}
        ) as to:
            to.write(pixels)
        vrt.write_text(_mosaic_vrt(patch.name, pixels.shape[1], vrts[1:] if level == 0 else []))
        pixels = halve(pixels, None)[0]
    settings = {"compress": "JPEG", "quality": 75, "blocksize": 512, "bigtiff": "YES"}
    return cog_of(vrts[0], path, **settings, overviews="FORCE_USE_EXISTING")


def _mosaic_vrt(patch: str, side: int, overviews: list[Path]) -> str:
    """The mosaic of a patch as GDAL reads it; of the native one with its overviews."""
    steps = range(0, side * MOSAIC_SIDE // PATCH_SIDE, side)
    size, bands = f'xSize="{side}" ySize="{side}"', ""
    for band, colour in enumerate(("Red", "Green", "Blue"), start=1):
        sources = "".join(
            f'<SimpleSource><SourceFilename relativeToVRT="1">{patch}</SourceFilename>'
            f'<SourceBand>{band}</SourceBand><SrcRect xOff="0" yOff="0" {size}/>'
            f'<DstRect xOff="{x}" yOff="{y}" {size}/></SimpleSource>'
            for y in steps
            for x in steps
        )
        coarser = "".join(
            f'<Overview><SourceFilename relativeToVRT="1">{one.name}</SourceFilename>'
            f"<SourceBand>{band}</SourceBand></Overview>"
            for one in overviews
        )
        interpretation = f"<ColorInterp>{colour}</ColorInterp>"
        bands += (
            f'<VRTRasterBand dataType="Byte" band="{band}">{interpretation}{coarser}{sources}</VRTRasterBand>'
        )
    place = ", ".join(str(value) for value in GEOREFERENCE["transform"].to_gdal())
    whole = side * MOSAIC_SIDE // PATCH_SIDE
    return (
        f'<VRTDataset rasterXSize="{whole}" rasterYSize="{whole}"><SRS>{GEOREFERENCE["crs"]}</SRS>'
        f"<GeoTransform>{place}</GeoTransform>{bands}</VRTDataset>"
    )


def places_of(side: int, count: int, seed: int) -> list[tuple[int, int]]:
    """Rows and columns of random native tiles, in halves."""
    last = side // HALF - 2
    rows, cols = np.random.default_rng(seed).integers(0, last, (2, count))
    return list(zip(rows.tolist(), cols.tolist(), strict=True))


def rate(place: str, reader: str, places: list[tuple[int, int]]) -> float:
    """Tiles per second of a new process, opening included."""
    command = [sys.executable, "-c", RATE, place, reader, str(HALF), json.dumps(places), str(AT_ONCE)]
    return float(json.loads(subprocess.run(command, check=True, capture_output=True).stdout))


def local_rates(folder: Path) -> dict[str, object]:
    """Random native tiles of a local COG: ours in batches, rasterio with one handle one after another."""
    source = tiled_tiff(folder / f"tiled-{LOCAL_SIDE}.tif", LOCAL_SIDE)
    figures: dict[str, object] = {}
    ratios = []
    kinds = {
        "zstd": {"compress": "ZSTD", "level": 1, "predictor": "YES", "blocksize": 256},
        "jpeg": {"compress": "JPEG", "blocksize": 512},
    }
    for name, settings in kinds.items():
        cog = str(cog_of(source, folder / f"{name}.tif", **settings))
        places = places_of(LOCAL_SIDE, LOCAL_TILES, seed=1)
        rounds = [(rate(cog, "ours", places), rate(cog, "rasterio", places)) for _ in range(ROUNDS)]
        ours, theirs = (median(one[n] for one in rounds) for n in (0, 1))
        figures[f"cog_vs_rasterio_{name}"] = round(median(a / b for a, b in rounds), 2)
        figures[f"cog_tiles_per_second_{name}"] = {"ours": round(ours), "rasterio": round(theirs)}
        ratios.append(median(a / b for a, b in rounds))
    return {"cog_vs_rasterio": round(min(ratios), 2), **figures}


def http_rates(folder: Path) -> dict[str, object]:
    """Random native tiles of the mosaic over HTTP, every answer 50 ms late."""
    cog = mosaic_cog(folder)
    places = places_of(MOSAIC_SIDE, HTTP_TILES, seed=2)
    with range_server(folder, LATENCY_S) as server:
        place = f"{server.url}/{cog.name}"
        rounds = [
            (rate(place, "ours", places), rate(place, "rasterio", places[:RIVAL_HTTP_TILES]))
            for _ in range(ROUNDS)
        ]
    ours, theirs = (median(one[n] for one in rounds) for n in (0, 1))
    return {
        "cog_http_vs_rasterio": round(median(a / b for a, b in rounds), 1),
        "cog_http_tiles_per_second": {"ours": round(ours, 1), "rasterio": round(theirs, 1)},
    }


def first_walk(folder: Path) -> dict[str, object]:
    """A walk from the root to a native tile, one look a depth, by a process that has read nothing yet."""
    cog = mosaic_cog(folder)
    worst: tuple[int, int, int] = (0, 0, 0)
    with range_server(folder, LATENCY_S) as server:
        for seed in range(5):
            looks = _walk(seed)
            command = [sys.executable, "-c", WALK, f"{server.url}/{cog.name}", str(HALF), json.dumps(looks)]
            server.reset()
            begun = time.perf_counter()
            done = subprocess.run(command, check=True, capture_output=True)
            milliseconds = round((time.perf_counter() - begun) * 1000)
            levels, requests, size = json.loads(done.stdout)
            if (levels, requests, size) != (len(looks), server.requests, server.sent):
                raise RuntimeError(f"counted {requests} and {size}, seen {server.requests} and {server.sent}")
            worst = max(worst, (requests, size, milliseconds))
    return {
        "cog_first_walk_requests": worst[0],
        "cog_first_walk_mb": round(worst[1] / 1e6, 2),
        "cog_first_walk_looks": len(looks),
        "cog_first_walk_cog_mb": round(cog.stat().st_size / 1e6),
    }


def _walk(seed: int) -> list[tuple[int, int, int]]:
    """Root, then a random child of each look, to level 0."""
    random = np.random.default_rng(seed)
    level, row, col = 8, 0, 0
    looks = [(level, row, col)]
    while level:
        level, row, col = level - 1, 2 * row + int(random.integers(3)), 2 * col + int(random.integers(3))
        looks.append((level, row, col))
    return looks


def bench(folder: Path) -> dict[str, object]:
    """All of them. The COGs are made once, and kept in `folder`: about 1.5 GB."""
    folder.mkdir(parents=True, exist_ok=True)
    return {**local_rates(folder), **http_rates(folder), **first_walk(folder)}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path)
    arguments = parser.parse_args()
    if arguments.folder:
        print(json.dumps(bench(arguments.folder), indent=2))
    else:
        with tempfile.TemporaryDirectory() as name:
            print(json.dumps(bench(Path(name)), indent=2))
