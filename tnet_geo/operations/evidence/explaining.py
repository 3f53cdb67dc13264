"""`explain verify`: the proof that no answer depends on a pixel outside its trail."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, cast

import numpy as np
import pyarrow.compute as pc
import torch

from tnet_geo.errors import InvalidResults
from tnet_geo.grid import Tile
from tnet_geo.imagery import Site
from tnet_geo.inference import Classifier, load_bundle
from tnet_geo.inference.budgets import Budget
from tnet_geo.inference.runtimes import Precision, Runtime
from tnet_geo.model import WalkSettings
from tnet_geo.operations.devices import devices_here
from tnet_geo.operations.evidence.witness import WatchedArchive
from tnet_geo.pyramid import Archive, CogArchive, SceneArchive, open_scenes
from tnet_geo.pyramid.cog_noise import noised_cog
from tnet_geo.pyramid.handles import HANDLES
from tnet_geo.pyramid.noise import NoiseCount, item_of, noised_item
from tnet_geo.results import PredictionRow, Results
from tnet_geo.results.tables import prediction_table, trail_table
from tnet_geo.results.walks import window_of
from tnet_geo.trail import Answer, Failure

__all__ = ["Finding", "WalkProof", "verify_walks"]

NO_CLOCK = 1e6
"""Seconds: a deadline that no sample reaches. Walks that had one are calibrated as those of a budget."""
PROVED = "Nothing differs: no answer depends on a pixel outside its trail."
NOT_PROVED = "Nothing differs, but that proves nothing: the walks have read every chunk of their scenes."
LONGEST = 60
"""Characters of a value in a finding."""


@dataclass(frozen=True, slots=True)
class Finding:
    """A site whose answer is not what its trail says."""

    site_id: str
    reason: str


@dataclass(frozen=True)
class WalkProof:
    """What became of a sample of sites when everything that they had not read was replaced by noise."""

    run: str
    archive: str
    bundle: str
    runtime: str
    """What computed the looks here."""
    stored: bool
    """Whether answers were also compared with the stored ones, which the same runtime must have given."""
    sites: tuple[str, ...]
    """As they were drawn."""
    looks: int
    scenes: int
    """Scenes, packs or COGs that were copied."""
    chunks_read: int
    """Chunks of the copies that were left as they are."""
    chunks_noised: int
    left_out: int
    """Sites of the run that could not be drawn, for the clock had ended their walks."""
    findings: tuple[Finding, ...]

    @property
    def exit_code(self) -> int:
        """0, or 5 where an answer differs."""
        return 5 if self.findings else 0

    def lines(self) -> list[str]:
        """What was compared, and what was found."""
        beside = "the stored ones" if self.stored else "none that are stored: another runtime gave those"
        text = [
            f"run       {self.run}",
            f"archive   {self.archive}",
            f"bundle    {self.bundle}",
            f"runtime   {self.runtime}",
            f"answers   {len(self.sites)} sites with {self.looks} looks, compared with {beside}",
            f"noise     {self.chunks_noised} chunks hold noise, {self.chunks_read} are as they were, "
            f"in {self.scenes} copies",
        ]
        if self.left_out:
            text.append(f"left out  {self.left_out} sites whose walks the clock ended")
        found = [f"site {finding.site_id}: {finding.reason}" for finding in self.findings]
        return text + (found or [PROVED if self.chunks_noised else NOT_PROVED])


def verify_walks(
    results: str | Path,
    *,
    run: str | None = None,
    archive: str | Path | None = None,
    bundle: str | Path | None = None,
    sites: int = 12,
    seed: int = 0,
    device: str | None = None,
) -> WalkProof:
    """Answer a sample of a run's sites again where every chunk outside their trails holds noise.

    The scenes, packs or COGs of the sample are copied one after the other to a temporary folder. Of their
    chunks only those that the sample's trails name are true. All numbers must be the same, bit by bit:
    with noise and without, and, where the same runtime computes here, as they are stored. Tiles that are
    asked for beside the trails are found even where they change nothing.

    archive, bundle: where they are now, if not where the run found them. device: another than the run's.

    >>> verify_walks("results", sites=2).exit_code
    0

    Raises:
        InvalidResults: there is no such run, or none of its walks can be repeated.
        InvalidArchive, InvalidBundle, ArchiveMismatch, RuntimeUnusable: nothing can be answered here.
        SceneMissing, TileUnreadable, SourceUnreadable: a scene cannot be copied.
        PlaceUnusable: there is no room for a copy.
    """
    stored = Results.open(results, run)
    names, left_out = _drawn(stored, sites, seed)
    where = open_scenes(archive or stored.record.archive)
    folder = str(bundle or stored.record.bundle)
    classifier = _classifier(stored, folder, device)
    classifier.check(where)
    sample = _Sample(classifier, where, {row["site_id"]: row for row in stored.rows("predictions", names)})
    comparable = sample.runtime == stored.record.settings["runtime"]
    with _one_thread():
        truth, findings = sample.truth(names)
        if comparable:
            findings += sample.unlike(truth, stored.rows("trails", names))
        counts: list[NoiseCount] = []
        for number, group in enumerate(sample.groups(truth)):
            found, count = sample.with_noise(group, truth, np.random.default_rng([seed, number]))
            findings += found
            counts.append(count)
    return WalkProof(
        run=stored.record.id,
        archive=where.place,
        bundle=folder,
        runtime=sample.runtime,
        stored=comparable,
        sites=tuple(names),
        looks=sum(len(answer.trail) for answer in truth.values()),
        scenes=len(counts),
        chunks_read=sum(count.kept for count in counts),
        chunks_noised=sum(count.noised for count in counts),
        left_out=left_out,
        findings=tuple(findings),
    )


def _drawn(results: Results, count: int, seed: int) -> tuple[list[str], int]:
    """Sites drawn at random, in their order, and how many the clock has made impossible to repeat."""
    answered = results.answered()
    timed = pc.equal(answered["ended_by"], "deadline")
    left_out = pc.sum(timed).as_py() or 0
    names = answered.filter(pc.invert(timed))["site_id"]
    if not len(names):
        raise InvalidResults(
            str(results.path), f"has no walk in run {results.record.id} that can be repeated"
        )
    chance = np.random.default_rng(seed)
    places = np.sort(chance.choice(len(names), min(count, len(names)), replace=False))
    return sorted(names.take(places).to_pylist()), left_out


def _classifier(results: Results, bundle: str, device: str | None) -> Classifier:
    """The bundle as the run has asked it; on another `device` in batches that suit that."""
    settings: Mapping[str, Any] = results.record.settings
    words = str(settings.get("runtime", "")).split()
    if len(words) < 6:
        raise InvalidResults(
            str(results.path), f"does not say what computed the looks of {results.record.id}"
        )
    budget = Budget(**(settings.get("budget") or {}))
    if budget.deadline is not None:
        budget = replace(budget, deadline=NO_CLOCK)
    wanted = device or words[3]
    there = devices_here(wanted)
    return load_bundle(
        bundle,
        walk=WalkSettings(**{key: settings[key] for key in WalkSettings.model_fields if key in settings}),
        budget=budget,
        accept=settings.get("accept", ()),
        runtime=cast(Runtime, words[0]),
        precision=cast(Precision, words[2]),
        device=there.name if wanted == "auto" else wanted,
        batch_looks=int(words[5]) if there.name == words[3] else None,
    )


@contextmanager
def _one_thread() -> Iterator[None]:
    """As in a worker: how many threads add up a product may decide its last bit."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


@dataclass(frozen=True)
class _Sample:
    """Some sites of a run, and what answers them."""

    classifier: Classifier
    archive: SceneArchive
    rows: Mapping[str, Mapping[str, Any]]
    """Their predictions as stored, by site."""

    @property
    def runtime(self) -> str:
        """What computes looks here, as the record of a run names it."""
        device = self.classifier.engine.device
        card = f" {torch.cuda.get_device_name(device)}" if device.type == "cuda" else ""
        return self.classifier.runtime + card

    def truth(self, names: Sequence[str]) -> tuple[dict[str, Answer], list[Finding]]:
        """Answers from the archive as it is; without one, or with untold tiles, a site is a finding."""
        outcomes, asked = self._answers(self.archive, names)
        lost = [
            Finding(outcome.site_id, f"it cannot be answered any more ({outcome.reason.rstrip('.')})")
            for outcome in outcomes.values()
            if isinstance(outcome, Failure)
        ]
        answers = {name: outcome for name, outcome in outcomes.items() if isinstance(outcome, Answer)}
        return answers, lost + self._untold(answers, asked)

    def _answers(
        self, archive: SceneArchive, names: Iterable[str]
    ) -> tuple[dict[str, Answer | Failure], Mapping[str, set[Tile]]]:
        """What each site is answered, and the tiles that were asked for, by scene."""
        watched = WatchedArchive(archive)
        sites = [self._site(self.rows[name], archive) for name in names]
        found = {outcome.site_id: outcome for outcome in self.classifier.answer(watched, sites)}
        return found, watched.asked

    @staticmethod
    def _site(row: Mapping[str, Any], archive: SceneArchive) -> Site:
        """The site as a manifest of `archive` would have it."""
        scene = archive.sources.get(row["scene_id"], "") if isinstance(archive, CogArchive) else ""
        label, split, date = row["expected"], row["split"], row["date"]
        return Site(row["site_id"], scene, row["scene_id"], window_of(row), label, split, date)

    def _untold(self, answers: Mapping[str, Answer], asked: Mapping[str, set[Tile]]) -> list[Finding]:
        """Sites of scenes of which a tile was asked for that no trail has."""
        told: dict[str, set[Tile]] = {}
        for name, answer in answers.items():
            tiles = told.setdefault(self.rows[name]["scene_id"], set())
            tiles.update(look.tile for look in answer.trail.looks)
        found = []
        for name in answers:
            scene = self.rows[name]["scene_id"]
            more = sorted(asked[scene] - told[scene])
            if more:
                first = f"level {more[0].level}, row {more[0].row}, column {more[0].col}"
                found.append(Finding(name, f"{len(more)} tiles were read that no trail names ({first})"))
        return found

    def unlike(self, truth: Mapping[str, Answer], trails: Sequence[Mapping[str, Any]]) -> list[Finding]:
        """Sites whose stored numbers are not those that the archive as it is gives here."""
        found = []
        for name, answer in truth.items():
            row = self.rows[name]
            spec = self.archive.reader(row["scene_id"], self.classifier.half_px).spec
            fresh = PredictionRow(
                answer=answer,
                scene_id=row["scene_id"],
                window=window_of(row),
                half_px=self.classifier.half_px,
                expected=row["expected"],
                split=row["split"],
                date=row["date"],
                crs=spec.crs,
                transform=spec.transform,
            )
            looks = sorted(
                (look for look in trails if look["site_id"] == name), key=lambda look: look["look"]
            )
            again = [*prediction_table([fresh]).to_pylist(), *trail_table([fresh]).to_pylist()]
            change = _first_change([row, *looks], again)
            if change is not None:
                found.append(Finding(name, f"its stored answer is not the one given here: {change}"))
        return found

    def groups(self, names: Iterable[str]) -> list[list[str]]:
        """Sites that are copied together: those of one scene, pack or COG."""
        groups: dict[object, list[str]] = {}
        for name in names:
            scene = self.rows[name]["scene_id"]
            place = item_of(self.archive, scene) if isinstance(self.archive, Archive) else scene
            groups.setdefault(place, []).append(name)
        return list(groups.values())

    def with_noise(
        self, names: Sequence[str], truth: Mapping[str, Answer], chance: np.random.Generator
    ) -> tuple[list[Finding], NoiseCount]:
        """The sites of one group that are answered otherwise where what they have not read is noise."""
        with TemporaryDirectory(prefix="tnet-geo-noise-", ignore_cleanup_errors=True) as folder:
            copy, count = self._copied(names, truth, Path(folder), chance)
            outcomes, _ = self._answers(copy, names)
            HANDLES.clear()  # of files that are about to go
        found = []
        for name in names:
            before, after = truth[name], outcomes[name]
            if isinstance(after, Failure):
                found.append(Finding(name, f"with noise it has no answer ({after.reason.rstrip('.')})"))
            elif (change := _first_change(_numbers(before), _numbers(after))) is not None:
                found.append(Finding(name, f"noise outside its trail changes its answer: {change}"))
        return found, count

    def _copied(
        self,
        names: Sequence[str],
        truth: Mapping[str, Answer],
        folder: Path,
        chance: np.random.Generator,
    ) -> tuple[SceneArchive, NoiseCount]:
        tiles: dict[str, set[Tile]] = {}
        for name in names:
            own = tiles.setdefault(self.rows[name]["scene_id"], set())
            own.update(look.tile for look in truth[name].trail.looks)
        half_px, first = self.classifier.half_px, next(iter(tiles))
        if isinstance(self.archive, CogArchive):
            return noised_cog(self.archive, first, tiles[first], half_px, folder=folder, chance=chance)
        assert isinstance(self.archive, Archive), "there are no others"
        item = item_of(self.archive, first)
        return noised_item(self.archive, item, tiles, half_px, folder=folder, chance=chance)


def _numbers(answer: Answer) -> list[dict[str, Any]]:
    """An answer and its looks as rows."""
    whole = {field.name: getattr(answer, field.name) for field in fields(answer) if field.name != "trail"}
    looks = answer.trail.looks
    return [whole, *({field.name: getattr(look, field.name) for field in fields(look)} for look in looks)]


def _first_change(before: Sequence[Mapping[str, Any]], after: Sequence[Mapping[str, Any]]) -> str | None:
    """The first value that is not the same in every bit, rows of an answer and its looks side by side."""
    for number, (old, new) in enumerate(zip(before, after, strict=False)):
        for name in old:
            if repr(old[name]) != repr(new[name]):  # of floats every bit, and one NaN is like another
                where = f" of look {number}" if number else ""
                return f"{name}{where} is {_short(old[name])}, then {_short(new[name])}"
    return None if len(before) == len(after) else f"{len(before) - 1} looks, then {len(after) - 1}"


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= LONGEST else text[: LONGEST - 1] + "\u2026"
