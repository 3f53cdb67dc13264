"""The walk beside its rivals: accuracy never without its cost."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import asdict, dataclass
from importlib import import_module
from pathlib import Path

import torch

from tnet_geo.errors import InvalidManifest, InvalidRunFile, OutputExists, UsageError
from tnet_geo.imagery import Site, read_manifest
from tnet_geo.inference import Budget, Classifier
from tnet_geo.inference.budgets import NO_BUDGET, walk_with
from tnet_geo.inference.expectations import Contradiction
from tnet_geo.learning.settings import read_run
from tnet_geo.model import read_bundle
from tnet_geo.operations.judging.contest import Contest, Contestant, contest, contest_lines
from tnet_geo.operations.judging.curve import CurvePoint, curve_lines, curve_of
from tnet_geo.operations.judging.curve_picture import curve_picture
from tnet_geo.operations.ledger import run_facts, write_json
from tnet_geo.pyramid import SceneArchive, open_archive
from tnet_geo.trail import Answer, Failure

__all__ = ["ClassFigures", "Contestant", "Evaluation", "contest_lines", "evaluate"]

RANDOM_DRAWS = 4
"""Random walks are drawn this often and averaged."""


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
    curve: tuple[CurvePoint, ...] = ()
    """The walk under every budget, where that was asked for."""

    @property
    def exit_code(self) -> int:
        """0, or 3 where sites were set aside."""
        return 3 if self.set_aside else 0

    def lines(self) -> list[str]:
        """Tables for people."""
        text = [f"{self.sites} sites of split {self.split}", "", *contest_lines(self.contestants)]
        width = max(len(row.label) for row in self.classes)
        text += ["", f"{'walk, by class':{width}}  sites  precision  recall     f1"]
        for figures in self.classes:
            text.append(
                f"{figures.label:{width}}  {figures.sites:5}  {figures.precision:9.3f}  {figures.recall:6.3f}"
                f"  {figures.f1:5.3f}"
            )
        if self.curve:
            text += ["", *curve_lines(self.curve)]
        return text + [f"set aside: {failure.reason}" for failure in self.set_aside]


def evaluate(  # noqa: PLR0913 - what is compared, under which budget, and where it goes
    run_dir: str | Path,
    *,
    archive: str | Path | None = None,
    manifest: str | Path | None = None,
    split: str = "test",
    out: str | Path | None = None,
    accept: Collection[Contradiction] = (),
    keep: Sequence[int] | None = None,
    budget: Budget = NO_BUDGET,
    curve: str | Path | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Evaluation:
    """Accuracy and cost of a run's walk and of its rivals (root, random walks, dense) on one split.

    Archive and manifest are the run's own unless given. `out` gets the figures as JSON. `accept` names
    contradictions between pixels and bundles that are waived, see `Expectations`. `keep` and `budget` are
    those of the walk alone. `curve` names a PNG for the accuracy of the bundle's own walk under budgets of
    every kind; its figures are part of the evaluation, and `progress` is told (done, total) of its points.

    >>> sorted(evaluate("runs/first").contestants)
    ['dense', 'random', 'root', 'walk']

    Raises:
        InvalidRunFile, InvalidManifest, InvalidArchive, InvalidBundle, ArchiveMismatch, OutputExists.
        UsageError: `accept` names no contradiction, no walk can have such a budget, or the curve is to be
            no PNG.
    """
    run = Path(run_dir)
    if not (run / "run.toml").is_file():
        raise InvalidRunFile(str(run), "is no folder of a training run", "make one with `tnet-geo train`")
    _check_outputs(out, curve)
    settings = read_run(run / "run.toml")
    torch.set_num_threads(
        settings.threads
    )  # as in training: on shared cores two threads took 20 times as long
    table = read_manifest(manifest or settings.data.manifest)
    sites = [site for site in table.select(split).sites if site.label is not None]
    if not sites:
        raise InvalidManifest(
            table.path, f"has no labelled site in split {split!r}", "evaluate another split"
        )
    store = open_archive(archive or settings.data.archive)
    bundles = {"walk": run / "bundle"} | {path.name: path for path in sorted((run / "rivals").glob("[!.]*"))}
    rivals = [name for name in ("root", "random", "dense") if name in bundles]
    found = {"walk": _measure(bundles["walk"], store, sites, accept, keep=keep, budget=budget)}
    found |= {name: _measure(bundles[name], store, sites, accept) for name in rivals}
    bundle = read_bundle(bundles["walk"])
    points: tuple[CurvePoint, ...] = ()
    if curve is not None:
        points = curve_of(bundle, store, sites, accept=accept, progress=progress)
    report = Evaluation(
        split=split,
        sites=len(sites),
        contestants={name: one.row for name, one in found.items()},
        classes=_by_class(found["walk"].answers, sites, bundle.facts.classes),
        set_aside=tuple(found["walk"].failures),
        curve=points,
    )
    if curve is not None:
        Path(curve).parent.mkdir(parents=True, exist_ok=True)
        Path(curve).write_bytes(curve_picture(points, report.contestants, sites=len(sites)))
    if out is not None:
        write_json(Path(out), run_facts() | asdict(report))
    return report


def _check_outputs(out: str | Path | None, curve: str | Path | None) -> None:
    """Raises: OutputExists, UsageError."""
    if curve is not None and Path(curve).suffix.lower() != ".png":
        raise UsageError(f"The curve is drawn as a PNG, and {curve} is named otherwise: call it curve.png.")
    for path in (out, curve):
        if path is not None and Path(path).exists():
            raise OutputExists(str(path))


def _measure(
    path: Path,
    archive: SceneArchive,
    sites: Sequence[Site],
    accept: Collection[Contradiction],
    *,
    keep: Sequence[int] | None = None,
    budget: Budget = NO_BUDGET,
) -> Contest:
    """A bundle on all sites; random walks are drawn several times and averaged."""
    bundle = read_bundle(path)
    walk = walk_with(bundle.facts.walk, keep, budget)
    seeds = range(RANDOM_DRAWS) if walk.policy == "random" else (walk.seed,)
    drawn = [walk.model_copy(update={"seed": seed}) for seed in seeds]
    contests = [
        contest(Classifier(bundle, walk=one, budget=budget, accept=accept), archive, sites) for one in drawn
    ]
    rows = [asdict(found.row) for found in contests]
    mean = {key: sum(row[key] for row in rows) / len(rows) for key in rows[0]}
    return Contest(Contestant(**mean), contests[0].answers, contests[0].failures)


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
