"""Building and reading pyramids against real rivals, as JSON; all ratios from this one run.

python tests/benchmarks/pyramid.py --json [--only build,jpeg,...] [--folder FOLDER]

Sources (about 10 GB) are made from seeds in FOLDER, by default one that is removed afterwards. Both
sides use two processes or threads, and every build is done `REPEATS` times in turns: medians count.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from statistics import median

import numpy as np
import rasterio
from distributed import Client
from rasterio.errors import NotGeoreferencedWarning
from rasterio.shutil import copy
from rasterio.windows import Window

sys.path.insert(0, str(Path(__file__).parents[2]))  # run as a script, from anywhere

from tests.benchmarks.sources import jpeg_of, small_images, tiled_tiff
from tnet_geo.imagery import Site, write_manifest
from tnet_geo.operations import build_archive
from tnet_geo.operations.cluster import cluster

WORKERS = 2
REPEATS = 3
SIDE = 16_000
TILES = 2_000
IN_FLIGHT = 32

Figures = dict[str, object]


def seconds(work: Callable[[], object]) -> float:
    """Wall time of one call."""
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


def manifest_of(folder: Path, scenes: list[Path]) -> Path:
    """A manifest with one site a scene."""
    path = folder / f"{scenes[0].stem}-{len(scenes)}.parquet"
    if not path.exists():
        write_manifest([Site(f"s{n}", str(scene), f"s{n}") for n, scene in enumerate(scenes)], path)
    return path


def size_of(folder: Path) -> tuple[int, int]:
    """Files and bytes below a folder."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return len(files), sum(path.stat().st_size for path in files)


def built(manifest: Path, out: Path, client: Client, **options: object) -> float:
    """Seconds of one build on a running cluster into a folder that is not there yet."""
    shutil.rmtree(out, ignore_errors=True)
    address = client.scheduler.address

    def build() -> None:
        report = build_archive(manifest, out, scheduler=address, **options)
        if report.built != report.scenes:
            raise RuntimeError(f"{report.built} of {report.scenes} scenes are built")

    return seconds(build)


def bench_build(folder: Path) -> Figures:
    """A tiled GeoTIFF to all levels, against GDAL's COG driver at its fastest honest setting."""
    source = tiled_tiff(folder / "tiled.tif", SIDE)
    manifest, cog, archive = manifest_of(folder, [source]), folder / "cog.tif", folder / "archive"
    settings = {"compress": "ZSTD", "level": 1, "predictor": "YES", "blocksize": 256}
    settings |= {"overview_resampling": "AVERAGE", "num_threads": WORKERS, "bigtiff": "YES"}
    ours, theirs = [], []
    with cluster(WORKERS, None) as client:
        for _ in range(REPEATS):
            ours.append(built(manifest, archive, client))
            cog.unlink(missing_ok=True)
            theirs.append(seconds(lambda: copy(source, cog, driver="COG", **settings)))
    alone = folder / "alone"
    whole = seconds(lambda: build_archive(manifest, alone, workers=WORKERS))
    shutil.rmtree(alone)
    return {
        "build_vs_gdal_cog": round(median(theirs) / median(ours), 2),
        "build_vs_gdal_cog_with_start_of_workers": round(median(theirs) / whole, 2),
        "build_seconds": round(median(ours), 2),
        "build_seconds_with_start_of_workers": round(whole, 2),
        "gdal_cog_seconds": round(median(theirs), 2),
        "build_mb": round(size_of(archive)[1] / 1e6),
        "gdal_cog_mb": round(cog.stat().st_size / 1e6),
    }


def bench_jpeg(folder: Path) -> Figures:
    """A JPEG, which has no inner tiles, against decoding it once in strips from top to bottom."""
    source = jpeg_of(tiled_tiff(folder / "tiled.tif", SIDE), folder / "scene.jpg")

    def decode() -> None:
        with rasterio.open(source) as dataset:
            for row in range(0, SIDE, 1024):
                dataset.read(window=Window(0, row, SIDE, min(1024, SIDE - row)))

    manifest, ours, theirs = manifest_of(folder, [source]), [], []
    with cluster(WORKERS, None) as client:
        for _ in range(REPEATS):
            ours.append(built(manifest, folder / "jpeg-archive", client))
            theirs.append(seconds(decode))
    return {
        "jpeg_build_over_decode": round(median(ours) / median(theirs), 2),
        "jpeg_build_seconds": round(median(ours), 2),
        "jpeg_decode_seconds": round(median(theirs), 2),
    }


def bench_memory(folder: Path) -> Figures:
    """The highest resident memory of a worker process, for a scene and for one nine times larger."""
    peaks = {}
    for side in (10_000, 30_000):
        source = tiled_tiff(folder / f"tiled-{side}.tif", side, compress="ZSTD", zstd_level=1)
        with cluster(WORKERS, None) as client:
            built(manifest_of(folder, [source]), folder / "memory-archive", client)
            peaks[side] = max(client.run(_peak_gib).values())
        shutil.rmtree(folder / "memory-archive")
    return {
        "worker_peak_gib": round(peaks[30_000], 3),
        "worker_peak_gib_10000": round(peaks[10_000], 3),
        "worker_peak_growth": round(peaks[30_000] / peaks[10_000], 3),
    }


def _peak_gib() -> float:
    """In a worker: the highest resident size that this process ever had."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 2**20


READ = """
import json, random, sys, time
from pathlib import Path
import numpy as np
scene, reader, count, at_once = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
half = 112
side = json.loads(Path(scene, "zarr.json").read_text())["attributes"]["tnet_geo"]["shape"][0] // half - 2
places = [(random.Random(n).randrange(side), random.Random(~n).randrange(side)) for n in range(count)]
groups = [places[n : n + at_once] for n in range(0, count, at_once)]
cost = {}
if reader == "ours":
    from tnet_geo.grid import Tile
    from tnet_geo.pyramid import SceneReader
    begun = time.perf_counter()
    source = SceneReader(scene)
    for group in groups:
        source.read([Tile(0, row, col) for row, col in group])
    own = sum(len(set(group)) for group in groups) * (2 * half) ** 2 * 3
    cost = {"bytes_over_tile": source.meter.bytes_decoded / own}
elif reader == "zarr":
    import zarr
    begun = time.perf_counter()
    source = zarr.open_array(Path(scene, "0", "data"), mode="r")
    for row, col in places:
        source[:, row * half : row * half + 2 * half, col * half : col * half + 2 * half]
else:
    import tensorstore as ts
    begun = time.perf_counter()
    spec = {"driver": "zarr3", "kvstore": {"driver": "file", "path": f"{scene}/0/data/"}}
    spec |= {"recheck_cached_data": "open", "recheck_cached_metadata": "open"}
    context = ts.Context({"cache_pool": {"total_bytes_limit": 32 << 20}})
    source = ts.open(spec, open=True, context=context).result()
    for group in groups:
        with ts.Batch() as batch:
            reads = [
                source[:, row : row + 2 * half, col : col + 2 * half].read(batch=batch)
                for row, col in ((row * half, col * half) for row, col in group)
            ]
        np.stack([read.result() for read in reads])
print(json.dumps({"tiles_per_second": count / (time.perf_counter() - begun)} | cost))
"""


def bench_tiles(folder: Path) -> Figures:
    """Random tiles of a sharded scene in a new process, its files dropped from the page cache."""
    source = tiled_tiff(folder / "tiled.tif", SIDE)
    archive = folder / "archive"
    if not archive.exists():
        build_archive(manifest_of(folder, [source]), archive, workers=WORKERS)
    scene = archive / "scenes" / "s0"

    def rate(reader: str, count: int) -> dict[str, float]:
        drop_from_page_cache(scene)
        command = [sys.executable, "-c", READ, str(scene), reader, str(count), str(IN_FLIGHT)]
        found: dict[str, float] = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
        return found

    rounds = [
        {"ours": rate("ours", TILES), "ts": rate("ts", TILES), "zarr": rate("zarr", 500)} for _ in range(5)
    ]
    per_second = {
        name: median(one[name]["tiles_per_second"] for one in rounds) for name in ("ours", "ts", "zarr")
    }
    return {
        "tiles_vs_zarr_python": round(per_second["ours"] / per_second["zarr"], 2),
        "tiles_vs_tensorstore": round(per_second["ours"] / per_second["ts"], 3),
        "bytes_over_tile": rounds[0]["ours"]["bytes_over_tile"],
        "tiles_per_second": {name: round(value) for name, value in per_second.items()},
    }


def drop_from_page_cache(folder: Path) -> None:
    """As after a restart: what was read or written is read from the disk again."""
    os.sync()
    for path in folder.rglob("*"):
        if path.is_file():
            handle = os.open(path, os.O_RDONLY)
            os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(handle)


def bench_packs(folder: Path) -> Figures:
    """Small images into packs, against one zarr group each by zarr-python, and against our own scenes."""
    images = small_images(folder / "small", 2_000, 512)
    manifest = manifest_of(folder, images)
    packs, scenes, groups = folder / "packs", folder / "scenes", folder / "groups"
    with cluster(WORKERS, None) as client:
        in_packs = median(built(manifest, packs, client, packs=True) for _ in range(REPEATS))
        in_scenes = built(manifest, scenes, client)
        shutil.rmtree(groups, ignore_errors=True)
        by_zarr = seconds(
            lambda: client.gather(client.map(_zarr_groups, np.array_split(images, 50), out=groups))
        )
    files = {path.name: size_of(path)[0] for path in (packs, scenes, groups)}
    return {
        "packs_vs_groups": round(by_zarr / in_packs, 2),
        "packs_vs_own_scenes": round(in_scenes / in_packs, 2),
        "packs_files_fewer": round(files["groups"] / files["packs"], 1),
        "packs_seconds": round(in_packs, 2),
        "own_scenes_seconds": round(in_scenes, 2),
        "groups_seconds": round(by_zarr, 2),
        "files": files,
    }


def _zarr_groups(images: list[Path], out: Path) -> None:
    """In a worker: what one would write by hand, three levels of 2 x 2 means."""
    import zarr

    for image in images:
        with rasterio.open(image) as dataset:
            level = dataset.read()
        group = zarr.create_group(out / Path(image).stem)
        for n in range(3):
            codec = zarr.codecs.ZstdCodec(level=1)
            array = group.create_array(
                str(n), shape=level.shape, chunks=(3, 112, 112), dtype=level.dtype, compressors=codec
            )
            array[...] = level
            wide = level.astype(np.uint16)
            level = (
                (wide[:, ::2, ::2] + wide[:, 1::2, ::2] + wide[:, ::2, 1::2] + wide[:, 1::2, 1::2] + 2) // 4
            ).astype(np.uint8)


def bench_cogs(folder: Path) -> Figures:
    """Tiles straight from COGs, local and over HTTP."""
    from tests.benchmarks.cogs import bench

    return bench(folder)


PARTS = {
    "build": bench_build,
    "tiles": bench_tiles,
    "jpeg": bench_jpeg,
    "packs": bench_packs,
    "cogs": bench_cogs,
    "memory": bench_memory,
}


def main(only: list[str], folder: Path) -> Figures:
    """Every part one after the other."""
    figures: Figures = {
        "benchmark": "pyramid",
        "date": time.strftime("%Y-%m-%d"),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
    }
    for name in only:
        print(f"{name} ...", file=sys.stderr, flush=True)
        figures |= PARTS[name](folder)
        print(json.dumps(figures), file=sys.stderr, flush=True)
    return figures


if __name__ == "__main__":
    warnings.simplefilter("ignore", NotGeoreferencedWarning)
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="the only form there is")
    parser.add_argument("--only", type=lambda text: text.split(","), default=list(PARTS))
    parser.add_argument("--folder", type=Path)
    arguments = parser.parse_args()
    if arguments.folder:
        arguments.folder.mkdir(parents=True, exist_ok=True)
        print(json.dumps(main(arguments.only, arguments.folder), indent=2))
    else:
        with tempfile.TemporaryDirectory() as name:
            print(json.dumps(main(arguments.only, Path(name)), indent=2))
