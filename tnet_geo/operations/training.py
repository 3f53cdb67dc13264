"""The training job: check everything that can be checked, then learn."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from tnet_geo.imagery import read_manifest
from tnet_geo.learning.calibration import AFTER, BEFORE
from tnet_geo.learning.checkpoints import EpochRow
from tnet_geo.learning.settings import RunSettings, read_run
from tnet_geo.learning.training import Progress, Training
from tnet_geo.model import read_bundle
from tnet_geo.operations.ledger import run_facts, write_json
from tnet_geo.pyramid import open_archive
from tnet_geo.trail import Failure

__all__ = ["TrainReport", "train"]


@dataclass(frozen=True)
class TrainReport:
    """What a run left behind."""

    bundle: Path
    """The best over all stages."""
    stage: str
    """Which stage that was."""
    accuracy: float
    """On the validation sites, with this many tiles per site:"""
    tiles: float
    temperature: float
    """Of the bundle's confidence, fitted on the validation sites;"""
    calibration_error_before: float
    """Expected calibration error on them, without the temperature"""
    calibration_error_after: float
    """and with it."""
    epochs: int
    set_aside: tuple[Failure, ...]
    seconds: float
    """Of this call; a resumed run took longer in all."""

    @property
    def exit_code(self) -> int:
        """0, or 3 where sites were set aside."""
        return 3 if self.set_aside else 0


def train(
    run_file: str | Path,
    *,
    manifest: str | Path | None = None,
    archive: str | Path | None = None,
    out: str | Path | None = None,
    resume: bool = True,
    progress: Progress | None = None,
) -> TrainReport:
    """Train a network that decides where to look, as a run file says.

    `manifest`, `archive` and `out` stand in for the run file's own. Stopped or killed, the same call goes
    on with the same next batch; a finished run is left alone.

    >>> report = train("run.toml", manifest="sites.parquet", archive="archive", out="runs/second")
    >>> str(report.bundle), report.exit_code
    ('runs/second/bundle', 0)

    Raises:
        InvalidRunFile, InvalidManifest, InvalidArchive, ArchiveMismatch, OutputExists: nothing was written.
    """
    given = {"data": {k: str(v) for k, v in (("manifest", manifest), ("archive", archive)) if v is not None}}
    overrides = given | ({"out": str(out)} if out is not None else {})
    settings = read_run(Path(run_file), overrides=overrides)
    return train_with(settings, resume=resume, progress=progress)


def train_with(
    settings: RunSettings, *, resume: bool = True, progress: Progress | None = None
) -> TrainReport:
    """`train` for settings that have been read."""
    begun = time.monotonic()
    torch.set_num_threads(settings.threads)
    training = Training(
        settings, read_manifest(settings.data.manifest), open_archive(settings.data.archive), progress
    )
    rows = training.run(fresh=not resume)
    report = _report(rows, training, time.monotonic() - begun)
    write_json(settings.out / "run.json", run_facts() | asdict(report))
    return report


def _report(rows: list[EpochRow], training: Training, seconds: float) -> TrainReport:
    facts = read_bundle(training.folder.bundle).facts
    return TrainReport(
        bundle=training.folder.bundle,
        stage=str(facts.training["stage"]),
        accuracy=facts.metrics["accuracy"],
        tiles=facts.metrics["tiles"],
        temperature=facts.temperature,
        calibration_error_before=facts.metrics[BEFORE],
        calibration_error_after=facts.metrics[AFTER],
        epochs=len(rows),
        set_aside=training.train.set_aside + training.validation.set_aside,
        seconds=seconds,
    )
