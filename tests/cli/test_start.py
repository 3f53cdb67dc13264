"""The command line starts quickly: it loads what a verb needs, when it needs it."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = {"torch", "torchvision", "timm", "albumentations", "cv2", "dask", "distributed", "torchmetrics"}


def loaded_by(arguments: list[str]) -> set[str]:
    """Top-level modules in a fresh process after `tnet-geo ARGUMENTS`."""
    code = (
        "import sys, tnet_geo.cli\n"
        f"sys.argv = ['tnet-geo', *{arguments!r}]\n"
        "try:\n    tnet_geo.cli.main()\n"
        "except SystemExit:\n    pass\n"
        "print('LOADED', *sorted({name.split('.')[0] for name in sys.modules}))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.rsplit("LOADED", 1)[1].split())


@pytest.mark.parametrize(
    "arguments", [["--help"], ["--version"], ["train", "--help"], ["demo", "--help"]], ids=str
)
def test_help_loads_no_library_that_reads_computes_or_distributes(arguments: list[str]) -> None:
    reading = {"numpy", "rasterio", "zarr", "tensorstore", "pyarrow", "duckdb", "matplotlib"}
    assert not loaded_by(arguments) & (HEAVY | reading)


def test_a_question_to_results_loads_neither_network_nor_cluster() -> None:
    assert not loaded_by(["results", "query", "no-results-here", "SELECT 1"]) & HEAVY


def test_the_package_alone_loads_nothing() -> None:
    code = "import sys; before = set(sys.modules); import tnet_geo; print(*(set(sys.modules) - before))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = {name.split(".")[0] for name in done.stdout.split()}
    assert loaded - sys.stdlib_module_names <= {"tnet_geo", "_typing"}
