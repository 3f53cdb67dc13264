"""Many walks at once: every pass has the same shape, and a site's looks are added up alone.

An answer therefore does not depend on which sites happen to be walked beside it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch

from tnet_geo.grid import Tile
from tnet_geo.inference.allocator import keep_freed_memory
from tnet_geo.inference.budgets import NO_BUDGET, Budget
from tnet_geo.inference.flow import Flow, Limits
from tnet_geo.inference.passes import Passes
from tnet_geo.inference.walks import SiteTask, Walk
from tnet_geo.model.network import SiteOutput, TraversalNetwork
from tnet_geo.model.settings import WalkSettings
from tnet_geo.trail import Failure

__all__ = ["Engine", "WalkResult"]


@dataclass(frozen=True)
class WalkResult:
    """One walk that has ended: where it looked, and what its looks add up to."""

    walk: Walk
    output: SiteOutput
    """Of this one site: logits [1, classes], shares [1, looks, classes]."""
    bytes_decoded: int


class Engine:
    """Runs walks over a network that is in evaluation mode.

    budget: what a walk may cost beside `settings`.
    temperatures: what the logits of an answer after 1, 2, ... looks are divided by, for `budget.stop_at`.
    batch_looks: looks per pass of the network.
    pad: whether every pass has that shape, so that answers do not depend on how many there are; without it
        a pass is as small as what is left, which answers single pictures soonest.
    in_flight: walks that are under way at once; memory grows with it, not with the number of sites.
    clock: seconds, for `budget.deadline`.

    Raises:
        UsageError: such a budget is not for these walks.
    """

    def __init__(  # noqa: PLR0913 - as many as there are things to choose
        self,
        network: TraversalNetwork,
        settings: WalkSettings,
        *,
        budget: Budget = NO_BUDGET,
        temperatures: Sequence[float] = (1.0,),
        batch_looks: int = 32,
        pad: bool = True,
        in_flight: int = 64,
        device: torch.device | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        budget.check(settings)
        keep_freed_memory()
        self.network = network
        self.settings = settings
        self.budget = budget
        self.device = device or torch.device("cpu")
        self._temperatures = tuple(temperatures)
        self.passes = Passes(network, batch_looks=batch_looks, pad=pad, device=self.device)
        self._limits = Limits(in_flight, 4 * in_flight, 2 * (in_flight + batch_looks), batch_looks)
        self._clock = clock

    def walk(
        self, tasks: Iterable[SiteTask | Failure], *, seconds: float | None = None
    ) -> Iterator[WalkResult | Failure]:
        """Walk every site; results come in the order of `tasks`, failures in their place.

        seconds: how much of a deadline is left; by default all of it.
        """
        left = self.budget.deadline if seconds is None else seconds
        until = None if left is None else self._clock() + left
        flow = Flow(
            tasks,
            self.passes,
            self._limits,
            start=lambda task: Walk(task, self.settings, self.budget),
            after=lambda walk: self._stop_in_time(walk, until),
            finish=self._result,
            parents=self.network.backbone.features if self.network.settings.location.parent else None,
            hurried=until is not None,
        )
        results = flow.results()
        while True:
            with torch.inference_mode():  # not while whoever asks is at work
                result = next(results, None)
            if result is None:
                return
            yield result

    def _stop_in_time(self, walk: Walk, until: float | None) -> None:
        """End a walk that need not, or cannot, go on."""
        if until is not None and self._clock() >= until:
            walk.stop("deadline")
        elif self.budget.stop_at is not None and self._confidence(walk) >= self.budget.stop_at:
            walk.stop("stop_at")

    def _confidence(self, walk: Walk) -> float:
        """Calibrated, of what the walk would answer now."""
        temperature = self._temperatures[min(len(walk.looked), len(self._temperatures)) - 1]
        logits = self._added_up(walk).logits[0]
        return float(torch.softmax(logits.double() / temperature, dim=0).max())

    def _added_up(self, walk: Walk) -> SiteOutput:
        features = walk.features.unsqueeze(0).to(self.device)
        mask = torch.ones(features.shape[:2], dtype=torch.bool, device=self.device)
        output = self.network.aggregate(features, mask)
        return SiteOutput(output.logits.cpu(), output.shares.cpu())

    def _result(self, walk: Walk) -> WalkResult:
        spec = walk.task.reader.spec
        read: set[Tile] = {look.tile for look in walk.looked}
        return WalkResult(walk, self._added_up(walk), sum(map(spec.tile_bytes, read)))
