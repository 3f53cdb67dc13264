"""What `classify` is going to take, in tiles, bytes, time and money, before anything is run or written."""

# mypy: disable-error-code="no-untyped-call"
# Much of distributed carries no types.

from __future__ import annotations

import math
import time
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from distributed import Client, Future, KilledWorker

from tnet_geo.errors import InvalidManifest, UsageError
from tnet_geo.imagery import Manifest
from tnet_geo.inference import Classifier
from tnet_geo.inference.budgets import NO_BUDGET, Budget
from tnet_geo.inference.expectations import Contradiction
from tnet_geo.inference.runtimes import Precision, Runtime
from tnet_geo.operations.classifying.classification import manifest_of
from tnet_geo.operations.classifying.tasks import Job
from tnet_geo.operations.cluster import cluster
from tnet_geo.operations.devices import devices_here, devices_there
from tnet_geo.operations.estimating.correction import Probed, corrected
from tnet_geo.operations.estimating.probe import Walked, load, walk_some
from tnet_geo.operations.forecasting.forecast import Cost, in_time, macs_of
from tnet_geo.operations.forecasting.survey import Survey, survey
from tnet_geo.pyramid import open_scenes
from tnet_geo.units import bytes_text, seconds_text

__all__ = ["Estimate", "Prices", "estimate"]

SURVEY_SECONDS = 3.0
"""What looking up sites may take."""
PATIENCE, PATIENCE_SECONDS = 10, 60.0
"""A probe that takes so many times as long as it was given, and so many seconds, has been lost."""
MILLION = 1_000_000


@dataclass(frozen=True, slots=True)
class Prices:
    """What things cost, in any currency; what has no price is left out.

    Raises:
        UsageError: a price below 0.
    """

    hour: float | None = None
    """One machine for an hour."""
    requests: float | None = None
    """A thousand requests."""
    gb: float | None = None
    """1e9 bytes over the network."""

    def __post_init__(self) -> None:
        for name in ("hour", "requests", "gb"):
            price = getattr(self, name)
            if price is not None and not 0 <= price < math.inf:
                raise UsageError(f"A price of {price:g} is none: give --price-{name} a number from 0 on.")

    def of(self, cost: Cost, machines: int) -> dict[str, float] | None:
        """What a million sites cost that are like those of `cost`; None where nothing has a price."""
        hours = None if cost.seconds is None else cost.seconds / 3600 * machines
        parts = {
            "machines": (self.hour, hours),
            "requests": (self.requests, cost.requests / 1000),
            "traffic": (self.gb, cost.bytes_fetched / 1e9),
        }
        scale = MILLION / max(cost.sites, 1)
        money = {
            name: round(price * count * scale, 4)
            for name, (price, count) in parts.items()
            if price is not None and count is not None
        }
        return money | {"total": round(sum(money.values()), 4)} if money else None


@dataclass(frozen=True, slots=True)
class Estimate:
    """What all sites together are going to take. All but `sites`, `looked_up` and `walked` is estimated."""

    sites: int
    looked_up: int
    """Sites of which it was found out what is stored."""
    walked: int
    """Of those, sites that the probe has walked."""
    set_aside: int
    """As many as the share of those that could not be looked up, or walked, says."""
    tiles: int
    tiles_error: float
    """Standard error of the number of tiles as a share of it: what chance has drawn other sites would say."""
    bytes_decoded: int
    bytes_error: float
    bytes_fetched: int
    """Over a network; 0 for local files."""
    requests: int
    """Over a network."""
    macs: int
    """Multiply-accumulates."""
    device: str
    workers: int
    tiles_per_second: float | None
    """Of all workers together, measured while all of them were at it; None: no site could be walked."""
    start_seconds: float
    """Until all workers had the model, measured."""
    seconds: float | None
    """Of the walks, after that."""
    money_per_million_sites: dict[str, float] | None
    """By what it is for; None where no price was given."""

    @property
    def exit_code(self) -> Literal[0, 3]:
        """0, or 3 where some sites are expected to be set aside."""
        return 3 if self.set_aside else 0

    def lines(self) -> list[str]:
        """For people."""
        each = max(self.sites, 1)
        known = self.walked == self.sites
        tiles = f"{self.tiles} {_within(self.tiles_error, known=known)}, {self.tiles / each:.2f} a site"
        decoded = f"{bytes_text(self.bytes_decoded)} {_within(self.bytes_error, known=known)}, "
        speed = "unknown" if self.tiles_per_second is None else f"{self.tiles_per_second:.1f} tiles a second"
        rows = [
            ("sites", f"{self.sites}; {self.looked_up} looked up, {self.walked} walked"),
            ("set aside", f"about {self.set_aside}" if self.set_aside else "none expected"),
            ("tiles", tiles),
            ("decoded", decoded + f"{bytes_text(self.bytes_decoded / each)} a site"),
            ("fetched", f"{bytes_text(self.bytes_fetched)} in {self.requests} requests"),
            ("computed", f"{self.macs:.3g} multiply-accumulates"),
            ("speed", f"{speed} with {self.workers} workers on {self.device}"),
            ("start", seconds_text(self.start_seconds)),
            ("time", "unknown" if self.seconds is None else f"about {seconds_text(self.seconds)}"),
        ]
        money = self.money_per_million_sites
        if money is not None:
            parts = ", ".join(f"{amount:.2f} {name}" for name, amount in money.items() if name != "total")
            rows.append(("money", f"{money['total']:.2f} a million sites: {parts}"))
        return [f"{name:<9}  {text}" for name, text in rows]


def estimate(  # noqa: PLR0913 - as many as the command has options
    *,
    archive: str | Path,
    manifest: str | Path | Manifest | None = None,
    bundle: str | Path,
    split: str | None = None,
    keep: Sequence[int] | None = None,
    budget: Budget = NO_BUDGET,
    workers: int | None = None,
    scheduler: str | None = None,
    device: str = "auto",
    accept: Collection[Contradiction] = (),
    runtime: Runtime = "folded",
    precision: Precision = "float32",
    probe: float = 10.0,
    prices: Prices = Prices(),
) -> Estimate:
    """What `classify` with the same arguments is going to take; nothing is written.

    Workers are started as `classify` would start them, and walk sites of the manifest that chance has
    drawn, for about `probe` seconds. What they take, beside what arithmetic says of the same sites, corrects
    what arithmetic says of all others; of many sites those are taken that could be looked up in some
    seconds. Time is that of the walks; parts are not written, and no part is taken for done.

    >>> found = estimate(archive="archive", manifest="sites.parquet", bundle="runs/first/bundle", workers=1)
    >>> found.sites, found.tiles > found.sites
    (36, True)

    Raises:
        InvalidManifest, InvalidArchive, InvalidBundle, ArchiveMismatch, RuntimeUnusable: as `classify`.
        UsageError: no scheduler answers, a manifest is missing, or options cannot be, alone or together.
    """
    if not 0 < probe < math.inf:
        raise UsageError(f"A probe of {probe:g} seconds measures nothing: take more than 0.")
    store = open_scenes(archive)
    sites = manifest_of(manifest, store).select(split).sites
    if not sites:
        raise InvalidManifest(str(manifest), f"has no site in split {split!r}", "select another")
    kept = None if keep is None else tuple(keep)
    endless = replace(budget, deadline=None)  # a probe that ends walks early would not say what they take
    job = Job(
        store.place, Path(bundle).absolute(), Path(), frozenset(accept), runtime, precision, kept, endless
    )
    with ExitStack() as stack:
        there = stack.enter_context(cluster(None, scheduler)) if scheduler else None
        devices = devices_here(device) if there is None else devices_there(device, there)
        # Where the command runs nothing is walked: whatever can read the bundle will do.
        classifier = replace(job, runtime="eager", precision="float32").classifier()
        classifier.check(store)
        begun = time.monotonic()
        client = there or stack.enter_context(cluster(workers, None, devices=devices.each, tries=1))
        job = replace(job, device=devices.name, bundle_digest=classifier.bundle.digest)
        crew = _Crew(job, client)
        with ThreadPoolExecutor(1) as thread:
            ready = thread.submit(crew.load)
            found = survey(store, sites, classifier.half_px, classifier.walk, endless, seconds=SURVEY_SECONDS)
            start = ready.result() - begun
        walked = crew.walk(found, probe)
        return _put_together(found, walked, classifier, crew, budget=budget, prices=prices, start=start)


class _Crew:
    """The workers of a cluster, which all do the same at once."""

    def __init__(self, job: Job, client: Client) -> None:
        self._job, self._client = job, client
        client.wait_for_workers(1)
        self.addresses = sorted(client.nthreads())
        self.workers = len(self.addresses)
        self.machines = len({address.rpartition(":")[0] for address in self.addresses})
        self.device = job.device

    def load(self) -> float:
        """Have all of them read the bundle; when they had. Raises what hinders them."""
        tasks = [self._submit(address, load, self._job) for address in self.addresses]
        for task in tasks:
            task.result()
        return time.monotonic()

    def walk(self, found: Survey, seconds: float) -> list[Probed]:
        """What each has walked of its share of the sites; nothing of those whose process died."""
        shares = [found.known[n :: self.workers] for n in range(self.workers)]
        tasks = [
            self._submit(address, walk_some, self._job, [known.site for known in share], seconds)
            for address, share in zip(self.addresses, shares, strict=True)
        ]
        return [Probed(share, self._ended(task, seconds)) for share, task in zip(shares, tasks, strict=True)]

    def _ended(self, task: Future[Walked], seconds: float) -> Walked:
        try:
            walked: Walked = task.result(timeout=PATIENCE_SECONDS + PATIENCE * seconds)
        except (KilledWorker, TimeoutError):  # a site that kills, or a worker that went away
            task.cancel()
            return Walked()
        return walked

    def _submit(self, address: str, call: Callable[..., object], *given: object) -> Future[Any]:
        return self._client.submit(call, *given, workers=[address], pure=False)


def _put_together(
    found: Survey,
    probed: Sequence[Probed],
    classifier: Classifier,
    crew: _Crew,
    *,
    budget: Budget,
    prices: Prices,
    start: float,
) -> Estimate:
    cost, errors = corrected(found, probed)
    rate = sum(one.walked.tiles / one.walked.seconds for one in probed if one.walked.seconds)
    if rate:
        cost = in_time(replace(cost, seconds=cost.tiles / rate), budget)
    walked = sum(len(one.walked.each) for one in probed)
    refused = sum(one.walked.refused for one in probed)
    lost = 1 - (1 - found.refused / found.drawn) * (1 - refused / max(walked, 1))
    return Estimate(
        sites=found.sites,
        looked_up=found.drawn,
        walked=walked,
        set_aside=math.ceil(found.sites * lost - 1e-9),
        tiles=cost.tiles,
        tiles_error=errors[0],
        bytes_decoded=cost.bytes_decoded,
        bytes_error=errors[1],
        bytes_fetched=cost.bytes_fetched,
        requests=cost.requests,
        macs=macs_of(classifier.bundle.network, cost),
        device=crew.device,
        workers=crew.workers,
        tiles_per_second=rate or None,
        start_seconds=start,
        seconds=cost.seconds,
        money_per_million_sites=prices.of(cost, crew.machines),
    )


def _within(error: float, *, known: bool) -> str:
    if known:
        return "exactly"
    return f"(standard error {error:.1%})" if math.isfinite(error) else "(by arithmetic alone)"
