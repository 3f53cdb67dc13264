"""The whole journey over generated scenes, by the same calls that everybody has."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Protocol

from tnet_geo.demo.scenes import generate_scenes
from tnet_geo.errors import OutputExists
from tnet_geo.imagery import manifest_from_folder
from tnet_geo.learning import RunSettings
from tnet_geo.learning.settings import DataSettings
from tnet_geo.learning.training import Progress
from tnet_geo.operations.building.build import build_archive
from tnet_geo.operations.classifying.classification import classify
from tnet_geo.operations.judging.evaluation import Contestant, Evaluation, contest_lines, evaluate
from tnet_geo.operations.ledger import run_facts, write_json
from tnet_geo.operations.training import train_with
from tnet_geo.results import Results, picture, write_report
from tnet_geo.units import seconds_text

__all__ = ["DemoReport", "demo_settings", "run_demo"]

SITES = 560
HALF_PX = 32
TITLE = "Which marking do the panels on the sandy yard carry?"


class DemoProgress(Progress, Protocol):
    """Told of steps of training, and called with (done, total) of other items."""

    def __call__(self, done: int, total: int) -> None:
        """So many items are done."""


@dataclass(frozen=True)
class DemoReport:
    """Figures of the demo, on sites that neither training nor selection has seen."""

    contestants: dict[str, Contestant]
    seed: int
    sites: int
    side_px: int
    test_sites: int
    total_seconds: float
    """Wall time of all steps, over all calls where the demo was interrupted."""
    report: Path

    def lines(self) -> list[str]:
        """The table, and where the report is."""
        title = f"{self.test_sites} test sites of {self.sites}, seed {self.seed}"
        took = f"took {seconds_text(self.total_seconds)}"
        return [title, "", *contest_lines(self.contestants), "", took, f"report: {self.report}"]


def demo_settings(out: Path, seed: int) -> RunSettings:
    """The run file of the demo: defaults all over."""
    data = DataSettings(manifest=out / "sites.parquet", archive=out / "archive")
    return RunSettings(out=out / "run", seed=seed, data=data)


def run_demo(
    out: str | Path,
    *,
    seed: int = 0,
    sites: int | None = None,
    side_px: int = 512,
    progress: DemoProgress | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> DemoReport:
    """Scenes, manifest, pyramids, training, comparison, answers, report: everything below `out`.

    Interrupted, the same call goes on with what is missing.

    Raises:
        OutputExists: `out` holds something else, or a demo of other settings.
    """
    folder = Path(out)
    asked = {"seed": seed, "sites": sites or SITES, "side_px": side_px}
    journey = _Journey(folder, asked, say)
    scenes, manifest = folder / "scenes", folder / "sites.parquet"
    with journey.step("scenes") as missing:
        if missing:
            journey.remove("scenes")
            generate_scenes(scenes, seed=seed, sites=asked["sites"], side_px=side_px, progress=progress)
    with journey.step("manifest") as missing:
        if missing:
            manifest.unlink(missing_ok=True)
            manifest_from_folder(scenes, manifest, val=0.2, test=0.2)
    with journey.step("archive"):
        build_archive(manifest, folder / "archive", half_px=HALF_PX, progress=progress)
    settings = demo_settings(folder, seed)
    with journey.step("training"):
        train_with(settings, progress=progress)
    with journey.step("comparison"):
        evaluation = evaluate(settings.out, split="test")
    with journey.step("answers"):
        classify(
            archive=folder / "archive",
            manifest=manifest,
            bundle=settings.out / "bundle",
            out=folder / "results",
            split="test",
        )
    with journey.step("report"):
        _write_pages(folder, evaluation)
    return _report(folder, asked, evaluation, journey.seconds)


def _write_pages(folder: Path, evaluation: Evaluation) -> None:
    results = Results.open(folder / "results")
    rows = {name: asdict(row) for name, row in evaluation.contestants.items()}
    write_report(results, folder / "report.html", comparison=rows, title=TITLE)
    surest = "SELECT site_id FROM predictions WHERE label = expected ORDER BY confidence DESC, site_id"
    most = results.query(surest, rows=1)
    if most.num_rows:
        (folder / "walk.png").write_bytes(picture(results, most["site_id"][0].as_py()))


def _report(folder: Path, asked: dict[str, int], evaluation: Evaluation, seconds: float) -> DemoReport:
    report = DemoReport(
        contestants=evaluation.contestants,
        **asked,
        test_sites=evaluation.sites,
        total_seconds=round(seconds, 1),
        report=folder / "report.html",
    )
    rows = {name: asdict(row) for name, row in report.contestants.items()}
    facts = {"seed": report.seed, "sites": report.sites, "test_sites": report.test_sites}
    write_json(folder / "summary.json", rows | facts | {"total_seconds": report.total_seconds} | run_facts())
    return report


class _Journey:
    """Which steps of a demo are done, and how long they took: OUT/demo.json."""

    def __init__(self, folder: Path, asked: dict[str, int], say: Callable[[str], None]) -> None:
        self._folder, self._file, self._say = folder, folder / "demo.json", say
        known = json.loads(self._file.read_text()) if self._file.is_file() else None
        if known is None and folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise OutputExists(str(folder), "it holds no demo; name another folder with --out")
        if known is not None and known["asked"] != asked:
            had = ", ".join(f"{key} {value}" for key, value in known["asked"].items())
            raise OutputExists(
                str(folder), f"it holds a demo with {had}; name another folder with --out, or remove it"
            )
        self._state = known or {"asked": asked, "seconds": {}}
        write_json(self._file, self._state)

    @property
    def seconds(self) -> float:
        """Of all steps so far."""
        return float(sum(self._state["seconds"].values()))

    def remove(self, name: str) -> None:
        """Clear what an interrupted step has left."""
        for path in sorted((self._folder / name).rglob("*"), reverse=True):
            path.rmdir() if path.is_dir() else path.unlink()

    @contextmanager
    def step(self, name: str) -> Iterator[bool]:
        """Do a step; gives whether it has never been finished. Its time adds up over interruptions."""
        missing = name not in self._state["seconds"]
        begun = time.perf_counter()
        yield missing
        took = time.perf_counter() - begun
        if missing:
            self._state["seconds"][name] = round(took, 2)
            write_json(self._file, self._state)
        self._say(f"{name}: {seconds_text(took)}")
