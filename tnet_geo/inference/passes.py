"""Passes of the network over tiles of any sites and depths, each of one shape, on one device.

On a GPU copies and computing overlap: pixels leave from pinned memory on a stream of their own, and
outputs are asked for only when later passes are under way.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tnet_geo.inference.walks import Place, places_of
from tnet_geo.model.network import LookOutput, TraversalNetwork

__all__ = ["LookRow", "Pass", "Passes", "pixels_tensor"]

PASSES_AHEAD = 2
"""On a GPU, passes that are under way while the host chooses from the outputs of an earlier one."""
NOWHERE: Place = (0, (0.0, 0.0), (0.0, 0.0))


class LookRow(NamedTuple):
    """One tile, ready to be looked at."""

    pixels: NDArray[np.generic]
    """[bands, B, B], raw."""
    validity: NDArray[np.uint8]
    """[B, B]."""
    place: Place
    parent: Tensor | None
    """float32 [F]: of the look that chose it, for heads that want it."""
    ends: bool
    """Whether nobody asks where to look closer."""


@dataclass(frozen=True)
class Pass:
    """A pass that is under way, or done."""

    output: LookOutput
    """Of as many rows as were asked for, on the CPU."""
    event: torch.cuda.Event | None
    """On a GPU: outputs are there once it has come."""

    def result(self) -> LookOutput:
        """Features [n, F] and child logits [n, 9], waited for."""
        if self.event is not None:
            self.event.synchronize()
        return self.output


class Passes:
    """Fills batches of `batch_looks` rows; without `pad` a pass is as small as what it is given."""

    def __init__(
        self, network: TraversalNetwork, *, batch_looks: int, pad: bool, device: torch.device
    ) -> None:
        self.batch_looks = batch_looks
        self._network, self._pad, self._device = network, pad, device
        self._cuda = device.type == "cuda"
        self.ahead = PASSES_AHEAD if self._cuda else 0
        self._copies = torch.cuda.Stream(device) if self._cuda else None
        self._parents = network.settings.location.parent
        self._slots: dict[str, list[_Slot]] = {}
        self._turn = 0

    def launch(self, rows: Sequence[LookRow]) -> Pass:
        """Begin one pass over rows of one dtype; at most `ahead` others may not have been waited for."""
        count = len(rows)
        shape = self.batch_looks if self._pad else count
        slot = self._slot(rows[0].pixels)
        slot.fill(rows)
        pixels, validity = self._moved(slot, shape)
        places = places_of([row.place for row in rows] + [NOWHERE] * (shape - count)).to(self._device)
        closer = not all(row.ends for row in rows)
        output = self._network.look(
            self._network.scale(pixels, validity), places, self._above(rows, shape), closer=closer
        )
        return self._leaving(LookOutput(output.features[:count], output.child_logits[:count]))

    def _slot(self, example: NDArray[np.generic]) -> _Slot:
        """Memory for the next batch, in turn: none is filled while it may still be copied to the device."""
        name = example.dtype.name
        if name not in self._slots:
            self._slots[name] = [
                _Slot(self.batch_looks, example, pinned=self._cuda) for _ in range(self.ahead + 1)
            ]
        self._turn = (self._turn + 1) % (self.ahead + 1)
        return self._slots[name][self._turn]

    def _moved(self, slot: _Slot, shape: int) -> tuple[Tensor, Tensor]:
        """The first `shape` rows of a slot on the device."""
        pixels, validity = slot.pixels[:shape], slot.validity[:shape]
        if self._copies is None:
            return pixels, validity
        computing = torch.cuda.current_stream(self._device)
        with torch.cuda.stream(self._copies):
            there = [part.to(self._device, non_blocking=True) for part in (pixels, validity)]
        computing.wait_stream(self._copies)
        for part in there:
            part.record_stream(computing)  # its memory is not given away while it is computed with
        return there[0], there[1]

    def _above(self, rows: Sequence[LookRow], shape: int) -> Tensor | None:
        if not self._parents:
            return None
        none = torch.zeros(self._network.backbone.features)
        each = [none if row.parent is None else row.parent for row in rows]
        return torch.stack(each + [none] * (shape - len(rows))).to(self._device)

    def _leaving(self, output: LookOutput) -> Pass:
        """Outputs on their way to the CPU."""
        if not self._cuda:
            return Pass(LookOutput(*(part.cpu() for part in output)), None)
        here = [torch.empty(part.shape, dtype=part.dtype, pin_memory=True) for part in output]
        for host, part in zip(here, output, strict=True):
            host.copy_(part, non_blocking=True)
        event = torch.cuda.Event()
        event.record(torch.cuda.current_stream(self._device))
        return Pass(LookOutput(*here), event)


class _Slot:
    """Pixels and validity of one batch, on the host. Beyond its rows is whatever was there before."""

    def __init__(self, count: int, example: NDArray[Any], *, pinned: bool) -> None:
        kept = pixels_tensor(np.zeros((1, *example.shape), example.dtype))
        shape = (count, *example.shape)
        self.pixels = torch.zeros(shape, dtype=kept.dtype, pin_memory=pinned)
        self.validity = torch.full((count, *example.shape[1:]), 255, dtype=torch.uint8, pin_memory=pinned)
        self._arrays = self.pixels.numpy(), self.validity.numpy()

    def fill(self, rows: Sequence[LookRow]) -> None:
        """Copy rows to the front."""
        pixels, validity = self._arrays
        for n, row in enumerate(rows):
            pixels[n], validity[n] = row.pixels, row.validity
        validity[len(rows) :] = 255


def pixels_tensor(pixels: NDArray[np.generic]) -> Tensor:
    """Raw pixels of any accepted dtype as a tensor that can be computed with."""
    # torch has hardly an operation for uint16, and none of its values is lost in int32.
    return torch.from_numpy(pixels.astype(np.int32) if pixels.dtype == np.uint16 else pixels)
