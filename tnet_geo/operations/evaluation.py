"""The walk beside its rivals: accuracy never without its cost."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib import import_module
from pathlib import Path

import torch

from tnet_geo.errors import InvalidManifest, InvalidRunFile, OutputExists
from tnet_geo.imagery import Site, read_manifest
from tnet_geo.inference import Classifier
from tnet_geo.inference.expectations import Contradiction
from tnet_geo.learning.calibration import calibration_error
from tnet_geo.learning.settings import read_run
from tnet_geo.model import read_bundle
from tnet_geo.operations.ledger import run_facts, write_json
from tnet_geo.pyramid import SceneArchive, open_archive
from tnet_geo.trail import Answer, Failure

__all__ = ["ClassFigures", "Contestant", "Evaluation", "contest_lines", "evaluate"]

RANDOM_DRAWS = 4
"""Random walks are drawn this often and averaged."""


@dataclass(frozen=True)
class Contestant:
    """One way to look, on all sites of a split; everything but accuracy is per site."""

    accuracy: float
    tiles: float
    bytes: float
    """Decoded."""
    pixel_fraction: float
    """Pixels read at any level over native pixels of the site."""
    seconds: float
    """Wall time, reading included, one process."""
    calibration_error_before: float
    """Expected calibration error of confidence, over all sites, as if the bundle had no temperature"""
    calibration_error_after: float
    """and with the temperature that was fitted on validation."""


@dataclass(frozen=True)
class ClassFigures:
    """How the walk did on one class."""

    label: str
    sites: int
    precision: float
    recall: float
    f1: float


@dataclass(frozen=True)
class Evaluation:
    """The table of a comparison."""

    split: str
    sites: int
    contestants: dict[str, Contestant]
    classes: tuple[ClassFigures, ...]
    set_aside: tuple[Failure, ...]

    @property
    def exit_code(self) -> int:
        """0, or 3 where sites were set aside."""
        return 3 if self.set_aside else 0

    def lines(self) -> list[str]:
        """Two tables for people."""
        text = [f"{self.sites} sites of split {self.split}", "", *contest_lines(self.contestants)]
        width = max(len(row.label) for row in self.classes)
        text += ["", f"{'walk, by class':{width}}  sites  precision  recall     f1"]
        for figures in self.classes:
            text.append(
                f"{figures.label:{width}}  {figures.sites:5}  {figures.precision:9.3f}  {figures.recall:6.3f}"
                f"  {figures.f1:5.3f}"
            )
        return text + [f"set aside: {failure.reason}" for failure in self.set_aside]


def contest_lines(contestants: Mapping[str, Contestant]) -> list[str]:
    """One line per way to look, for people."""
    lines = [f"{'':8}  accuracy    tiles     bytes   pixels   ms a site  calibration error, before and after"]
    for name, row in contestants.items():
        cost = f"{row.tiles:7.2f}  {row.bytes:8.0f}  {row.pixel_fraction:6.1%}  {1000 * row.seconds:10.2f}"
        errors = f"{row.calibration_error_before:17.3f}  {row.calibration_error_after:9.3f}"
        lines.append(f"{name:8}  {row.accuracy:8.3f}  {cost}  {errors}")
    return lines


def evaluate(
    run_dir: str | Path,
    *,
    archive: str | Path | None = None,
    manifest: str | Path | None = None,
    split: str = "test",
    out: str | Path | None = None,
    accept: Collection[Contradiction] = (),
) -> Evaluation:
    """Accuracy and cost of a run's walk and of its rivals (root, random walks, dense) on one split.

    Archive and manifest are the run's own unless given. `out` gets the figures as JSON. `accept` names
    contradictions between pixels and bundles that are waived, see `Expectations`.

    >>> sorted(evaluate("runs/first").contestants)
    ['dense', 'random', 'root', 'walk']

    Raises:
        InvalidRunFile, InvalidManifest, InvalidArchive, InvalidBundle, ArchiveMismatch, OutputExists.
        UsageError: `accept` names no contradiction.
    """
    run = Path(run_dir)
    if not (run / "run.toml").is_file():
        raise InvalidRunFile(str(run), "is no folder of a training run", "make one with `tnet-geo train`")
    if out is not None and Path(out).exists():
        raise OutputExists(str(out))
    settings = read_run(run / "run.toml")
    table = read_manifest(manifest or settings.data.manifest)
    sites = [site for site in table.select(split).sites if site.label is not None]
    if not sites:
        raise InvalidManifest(
            table.path, f"has no labelled site in split {split!r}", "evaluate another split"
        )
    store = open_archive(archive or settings.data.archive)
    bundles = {"walk": run / "bundle"} | {path.name: path for path in sorted((run / "rivals").glob("[!.]*"))}
    order = [name for name in ("walk", "root", "random", "dense") if name in bundles]
    found = {name: _measure(bundles[name], store, sites, accept) for name in order}
    walk = found["walk"]
    report = Evaluation(
        split=split,
        sites=len(sites),
        contestants={name: contest.row for name, contest in found.items()},
        classes=_by_class(walk.answers, sites, read_bundle(bundles["walk"]).facts.classes),
        set_aside=tuple(walk.failures),
    )
    if out is not None:
        write_json(Path(out), run_facts() | asdict(report))
    return report


@dataclass(frozen=True)
class _Contest:
    row: Contestant
    answers: Sequence[Answer]
    failures: Sequence[Failure]


def _measure(
    path: Path, archive: SceneArchive, sites: Sequence[Site], accept: Collection[Contradiction]
) -> _Contest:
    bundle = read_bundle(path)
    walk = bundle.facts.walk
    seeds = range(RANDOM_DRAWS) if walk.policy == "random" else (walk.seed,)
    drawn = [walk.model_copy(update={"seed": seed}) for seed in seeds]
    contests = [_walk_all(Classifier(bundle, walk=one, accept=accept), archive, sites) for one in drawn]
    rows = [asdict(contest.row) for contest in contests]
    mean = {key: sum(row[key] for row in rows) / len(rows) for key in rows[0]}
    return _Contest(Contestant(**mean), contests[0].answers, contests[0].failures)


def _walk_all(classifier: Classifier, archive: SceneArchive, sites: Sequence[Site]) -> _Contest:
    truth = {site.site_id: site for site in sites}
    list(classifier.answer(archive, sites[:1]))  # the first pass of a process pays for warming up
    begun = time.perf_counter()
    outcomes = list(classifier.answer(archive, sites))
    seconds = (time.perf_counter() - begun) / len(sites)
    answers = [outcome for outcome in outcomes if isinstance(outcome, Answer)]
    if not answers:
        failure = next(outcome for outcome in outcomes if isinstance(outcome, Failure))
        raise InvalidManifest("", "has no site that can be answered", failure.reason.rstrip("."))
    area = (2 * classifier.half_px) ** 2
    fractions = [
        len(answer.trail) * area / _native_pixels(truth[answer.site_id], archive) for answer in answers
    ]
    count = len(answers)
    before, after = _calibration_errors(answers, truth, classifier.classes)
    row = Contestant(
        accuracy=sum(answer.label == truth[answer.site_id].label for answer in answers) / count,
        tiles=sum(len(answer.trail) for answer in answers) / count,
        bytes=sum(answer.bytes_decoded for answer in answers) / count,
        pixel_fraction=sum(fractions) / count,
        seconds=seconds,
        calibration_error_before=before,
        calibration_error_after=after,
    )
    return _Contest(row, answers, [outcome for outcome in outcomes if isinstance(outcome, Failure)])


def _calibration_errors(
    answers: Sequence[Answer], truth: Mapping[str, Site], classes: Sequence[str]
) -> tuple[float, float]:
    """Of confidence without and with the bundle's temperature, over sites of known classes."""
    place = {label: n for n, label in enumerate(classes)}
    known = [answer for answer in answers if truth[answer.site_id].label in place]
    if not known:
        return 0.0, 0.0
    labels = torch.tensor([place[str(truth[answer.site_id].label)] for answer in known])
    logits = torch.tensor([answer.logits for answer in known], dtype=torch.float64)
    calibrated = torch.tensor([answer.probabilities for answer in known], dtype=torch.float64)
    return calibration_error(torch.softmax(logits, dim=1), labels), calibration_error(calibrated, labels)


def _native_pixels(site: Site, archive: SceneArchive) -> int:
    stored = archive.adopt(site)
    if stored.window is not None:
        return stored.window.height * stored.window.width
    rows, cols = archive.reader(stored.scene_id).spec.shape
    return rows * cols


def _by_class(
    answers: Sequence[Answer], sites: Sequence[Site], classes: Sequence[str]
) -> tuple[ClassFigures, ...]:
    """Precision, recall and F1 by torchmetrics."""
    import_module("tnet_geo.model.torchvision_schemas")  # must come before torchmetrics
    classification = import_module("torchmetrics.functional.classification")  # seconds, only for this table
    place = {label: n for n, label in enumerate(classes)}
    labels = {site.site_id: site.label for site in sites}
    known = [answer for answer in answers if labels[answer.site_id] in place]
    predicted = torch.tensor([place[answer.label] for answer in known])
    truth = torch.tensor([place[str(labels[answer.site_id])] for answer in known])
    each = {"num_classes": len(classes), "average": "none"}
    precision = classification.multiclass_precision(predicted, truth, **each)
    recall = classification.multiclass_recall(predicted, truth, **each)
    f1 = classification.multiclass_f1_score(predicted, truth, **each)
    counts = torch.bincount(truth, minlength=len(classes))
    figures = zip(classes, counts.tolist(), precision.tolist(), recall.tolist(), f1.tolist(), strict=True)
    return tuple(ClassFigures(*row) for row in figures)
