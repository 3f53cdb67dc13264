"""A whole run: stages A, B and C one after the other, then the rivals, each of which can be resumed."""

from __future__ import annotations

import copy
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import torch

from tnet_geo.imagery import Manifest
from tnet_geo.learning.augmentation import Augmentation
from tnet_geo.learning.calibration import calibrate
from tnet_geo.learning.checkpoints import EpochRow, RunFolder
from tnet_geo.learning.dense import DenseStage
from tnet_geo.learning.joint import JointStage
from tnet_geo.learning.location import RouteStage, random_route, root_route, taught_route
from tnet_geo.learning.networks import new_network
from tnet_geo.learning.published import BASELINE_FACT, FIRST_BASELINE, PublishedStage
from tnet_geo.learning.seen import Seen, seen_in
from tnet_geo.learning.settings import RunSettings, Schedule
from tnet_geo.learning.sites import load_sites
from tnet_geo.learning.stages import (
    Draw,
    Room,
    Stage,
    Validation,
    optimise,
    site_steps,
    take_step,
    walk_validation,
)
from tnet_geo.learning.targets import (
    ScoreTree,
    finest_tiles,
    fit_pool,
    label_evidence,
    score_tree,
    tile_features,
)
from tnet_geo.model import Bundle, BundleFacts, TraversalNetwork, WalkSettings, read_bundle
from tnet_geo.pyramid import SceneArchive

__all__ = ["Progress", "Silent", "Training"]

_STAGES = ("dense", "location", "joint", "published", "root", "random")
"""In the order in which they run."""
_SEEDS = {"dense": 0, "location": 1, "joint": 2, "root": 3, "random": 4, "published": 5}
"""What tells the chance of one stage from that of another."""


class Progress(Protocol):
    """Who is told how far a run has come."""

    def begin(self, stage: str, epochs: int, steps: int) -> None:
        """A stage starts or goes on; `steps` per epoch."""

    def step(self) -> None:
        """One step is done."""

    def epoch(self, row: EpochRow) -> None:
        """One epoch is done and validated."""


class Silent:
    """Tells nobody."""

    def begin(self, stage: str, epochs: int, steps: int) -> None:
        """See `Progress`."""

    def step(self) -> None:
        """See `Progress`."""

    def epoch(self, row: EpochRow) -> None:
        """See `Progress`."""


@dataclass(frozen=True)
class _Position:
    """Where a run stands: epochs of `stage` that are done, and the best of them."""

    stage: str
    epoch: int
    best: Validation | None
    reached: int
    """Epochs of the dense stage that were good enough to stop."""


class Training:
    """One run over one manifest and archive.

    Raises (on construction, before anything is written):
        InvalidManifest, ArchiveMismatch, InvalidRunFile: input that does not fit.
    """

    def __init__(
        self,
        settings: RunSettings,
        manifest: Manifest,
        archive: SceneArchive,
        progress: Progress | None = None,
    ) -> None:
        self.settings, self.archive, self.progress = settings, archive, progress or Silent()
        self.classes = manifest.classes()
        self.folder = RunFolder(settings.out)
        self.device = torch.device(_device(settings.device))
        self.train, self.validation = (
            load_sites(
                manifest,
                split,
                archive,
                classes=self.classes,
                base_px=settings.model.base_px,
                cache_gib=settings.data.cache_gib,
            )
            for split in ("train", "val")
        )
        self.network = self._new_network()
        self.walk = WalkSettings(
            keep=settings.keep, duplicates=settings.duplicates, order=settings.order, seed=settings.seed
        )
        self._trees: dict[int, ScoreTree] | None = None

    # -- the network and the room it learns in

    def _new_network(self) -> TraversalNetwork:
        torch.manual_seed(self.settings.seed)
        return new_network(self.settings.model, self.train, self.classes, self.device)

    @cached_property
    def _seen(self) -> Seen:
        return seen_in(self.train.sites)

    def _room(self, network: TraversalNetwork, walk: WalkSettings) -> Room:
        dtype = network.settings.pixels.dtype
        augmentation = Augmentation(self.settings.augmentation, dtype)
        return Room(
            network,
            self.train.sites,
            self.validation.sites,
            augmentation,
            walk,
            self.settings.seed,
            self.device,
        )

    # -- the stages

    def run(self, *, fresh: bool = False) -> list[EpochRow]:
        """Everything that is still to be done; gives the whole log.

        Raises:
            OutputExists: the run's folder holds something else.
        """
        self.folder.open(self.settings, fresh=fresh)
        state = self.folder.load()
        if state is not None:
            self.network.load_state_dict(state["network"])
        done = _STAGES.index(state["stage"]) if state else -1
        room = self._room(self.network, self.walk)
        for number, name in enumerate(_STAGES[:4]):
            if number < done or getattr(self.settings, name).epochs == 0:
                continue
            stage = self._stage(name, room)
            if name == "location" and number != done:
                self._take_pool()
            self._run_stage(stage, state if number == done else None, self.folder.bundle)
        if not self.folder.bundle.exists():
            self._save(room, walk_validation(room), self.folder.bundle, "dense")
        self._train_rivals()
        for bundle in self.folder.bundles():
            calibrate(bundle, self.validation.sites, self.device)
        return self.folder.rows()

    def _stage(self, name: str, room: Room) -> Stage:
        settings = self.settings
        if name == "dense":
            return DenseStage(room, settings.dense)
        if name == "published":
            begun = read_bundle(settings.model.begin).facts.training if settings.model.begin else {}
            baseline = float(begun.get(BASELINE_FACT, FIRST_BASELINE))
            return PublishedStage(room, settings.published, baseline)
        sharpness = settings.location.sharpness
        if name == "location":
            route = taught_route(self._scores(), self.walk, settings.location.detours)
            return RouteStage(room, settings.location, route, trees=self._scores(), order=settings.location)
        trees = self._scores() if settings.joint.location_weight else None
        return JointStage(room, settings.joint, trees, sharpness)

    def _run_stage(self, stage: Stage, state: dict[str, Any] | None, bundle: Path) -> None:
        """All epochs of a stage that are not done yet; the network ends as its best epoch left it."""
        schedule, network = stage.schedule, stage.modules["network"]
        steps = -(-len(self.train.sites) // schedule.sites_per_step)
        optimizer, cycle = optimise(stage, schedule.epochs * steps)
        position = _Position(stage.name, 0, None, 0)
        best_weights = copy.deepcopy(network.state_dict())
        if state is not None:
            stage.modules.load_state_dict(state["modules"])
            optimizer.load_state_dict(state["optimizer"])
            cycle.load_state_dict(state["cycle"])
            best_weights = state["best_weights"]
            position = _Position(stage.name, state["epoch"], _validation(state["best"]), state["reached"])
        self.progress.begin(stage.name, schedule.epochs, steps)
        while position.epoch < schedule.epochs and position.reached < 2:
            begun = time.perf_counter()
            loss = self._epoch(stage, position.epoch, optimizer, cycle)
            found = stage.validate()
            if found.better_than(position.best):
                position, best_weights = replace(position, best=found), copy.deepcopy(network.state_dict())
                self._keep_best(stage, found, bundle)
            good = stage.name == "dense" and found.accuracy >= self.settings.dense.stop_at
            position = replace(position, epoch=position.epoch + 1, reached=position.reached + good)
            seconds = round(time.perf_counter() - begun, 2)
            row = EpochRow(
                stage.name,
                position.epoch,
                schedule.epochs,
                loss,
                found.accuracy,
                found.loss,
                found.tiles,
                seconds,
            )
            self.folder.save(_state(position, stage, optimizer, cycle, best_weights))
            self.folder.log(row)
            self.progress.epoch(row)
        network.load_state_dict(best_weights)

    def _epoch(self, stage: Stage, epoch: int, optimizer: Any, cycle: Any) -> float:
        """One pass over the sites; gives the mean loss."""
        total, steps = 0.0, -(-len(self.train.sites) // stage.schedule.sites_per_step)
        seed = _SEEDS[stage.name]
        for step, sites in enumerate(site_steps(stage.room, stage.schedule, seed, epoch)):
            progress = (epoch * steps + step) / (stage.schedule.epochs * steps)
            draw = Draw(stage.room, seed, epoch, step)
            torch.manual_seed(draw.generator.initial_seed())  # for whatever the network drops
            loss = stage.loss(sites, draw, progress)
            total += take_step(stage, loss, optimizer)
            cycle.step()
            self.progress.step()
        return total / steps

    def _keep_best(self, stage: Stage, found: Validation, bundle: Path) -> None:
        """Save the walk's bundle if no earlier stage was better, so that a stage cannot undo another."""
        if stage.name == "dense":
            return
        earlier = read_bundle(bundle).facts.metrics if bundle.exists() else None
        before = Validation(earlier["accuracy"], earlier["loss"], earlier["tiles"]) if earlier else None
        if found.better_than(before):
            learned = {BASELINE_FACT: stage.baseline} if isinstance(stage, PublishedStage) else {}
            self._save(stage.room, found, bundle, stage.name, **learned)

    def _save(self, room: Room, found: Validation, path: Path, stage: str, **learned: float) -> None:
        facts = BundleFacts(
            classes=self.classes,
            canvas=self.archive.canvas,
            network=room.network.settings,
            walk=room.walk,
            **self._seen.facts(),
            training={"stage": stage, "seed": self.settings.seed, "sites": len(self.train.sites), **learned},
            metrics={"accuracy": found.accuracy, "loss": found.loss, "tiles": found.tiles},
        )
        Bundle(facts, room.network).save(path, replace=True)

    # -- what stage B teaches, and the rivals

    def _scores(self) -> dict[int, ScoreTree]:
        """Score trees of the training sites: made once, by the features as they are after stage A."""
        self._trees = self._trees or self.folder.load_trees()
        if self._trees is None:
            self._trees = self._make_scores()
            self.folder.save_trees(self._trees)
        return self._trees

    def _take_pool(self) -> None:
        """Stage B starts with the aggregation and classifier that made its scores."""
        teacher = read_bundle(self.folder.rival("dense")).network
        self.network.aggregation.load_state_dict(teacher.aggregation.state_dict())
        self.network.classifier.load_state_dict(teacher.classifier.state_dict())

    def _make_scores(self) -> dict[int, ScoreTree]:
        network, sites = self.network.eval(), self.train.sites
        tiles = [finest_tiles(site, self.settings.location.score_tiles) for site in sites]
        found = [
            tile_features(network, site, some, self.device) for site, some in zip(sites, tiles, strict=True)
        ]
        features = [rows[torch.from_numpy(valid)] for rows, valid in found]
        labels = torch.tensor([site.label for site in sites], device=self.device)
        teacher = fit_pool(
            network, features, labels, steps=self.settings.location.pool_steps, seed=self.settings.seed
        )
        dense = WalkSettings(policy="dense", keep=self.settings.keep)
        room = self._room(teacher, dense)
        self._save(room, walk_validation(room), self.folder.rival("dense"), "dense")
        trees = {}
        for site, rows, (_, valid) in zip(sites, features, found, strict=True):
            scores = torch.full((len(valid),), -torch.inf).numpy()
            scores[valid] = label_evidence(teacher, rows, site.label)
            side = int(len(scores) ** 0.5)
            trees[site.number] = score_tree(site.root, scores.reshape(side, side))
        return trees

    def _train_rivals(self) -> None:
        """Root alone and random walks, on the same sites, selected the same way."""
        wanted = self.settings.rivals.train
        if wanted and not self.folder.rival("dense").exists():
            self._scores()
        schedule: Schedule = self.settings.location
        if "root" in wanted and not self.folder.rival("root").exists():
            rivals = self.settings.rivals
            longer = {"epochs": rivals.root_epochs, "rate": rivals.root_rate, "weight_decay": 0.05}
            room = self._room(self._new_network(), WalkSettings(keep=()))
            self._run_rival(
                "root", RouteStage(room, schedule.model_copy(update=longer), root_route, name="root")
            )
        if "random" in wanted and not self.folder.rival("random").exists():
            walk = self.walk.model_copy(update={"policy": "random"})
            network = read_bundle(self.folder.rival("dense")).network
            room = self._room(network.on(self.device), walk)
            self._run_rival("random", RouteStage(room, schedule, random_route(walk), name="random"))

    def _run_rival(self, name: str, stage: RouteStage) -> None:
        """Under another name until it is whole: a rival that was interrupted begins again."""
        unfinished = self.folder.path / "rivals" / f".{name}"
        self._run_stage(stage, None, unfinished)
        unfinished.rename(self.folder.rival(name))


def _state(
    position: _Position,
    stage: Stage,
    optimizer: torch.optim.Optimizer,
    cycle: Any,
    best_weights: dict[str, Any],
) -> dict[str, Any]:
    best = position.best
    return {
        "stage": position.stage,
        "epoch": position.epoch,
        "reached": position.reached,
        "best": [best.accuracy, best.loss, best.tiles] if best else None,
        "best_weights": best_weights,
        "network": stage.modules["network"].state_dict(),
        "modules": stage.modules.state_dict(),
        "optimizer": optimizer.state_dict(),
        "cycle": cycle.state_dict(),
    }


def _validation(values: Sequence[float] | None) -> Validation | None:
    return Validation(*values) if values else None


def _device(asked: str) -> str:
    return ("cuda" if torch.cuda.is_available() else "cpu") if asked == "auto" else asked
