"""What computes looks: one device per worker, here or in a cluster."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from typing import Any

import torch

from tnet_geo.errors import RuntimeUnusable, UsageError

__all__ = ["Devices", "cuda_devices", "devices_here", "devices_there"]


@dataclass(frozen=True, slots=True)
class Devices:
    """What workers compute on."""

    name: str
    """As torch names it in each worker: `cpu`, `cuda`, `cuda:1`."""
    each: tuple[str, ...] = ()
    """What each worker of this machine gets for itself, as CUDA_VISIBLE_DEVICES has it; none: no device."""


def devices_here(device: str) -> Devices:
    """What workers of this machine compute on.

    device: `auto` is all CUDA devices, or the CPU where there is none; `cpu`; `cuda`; `cuda:1`, one of them.

    Raises:
        UsageError: it is none of those.
        RuntimeUnusable: there is no such device.
    """
    _check(device)
    there = cuda_devices()
    if device == "cpu" or (device == "auto" and not there):
        return Devices("cpu")
    number = int(device.partition(":")[2] or 0)
    if number >= len(there):
        raise RuntimeUnusable(device, f"this machine has {len(there)} CUDA devices that torch can use")
    return Devices("cuda", (there[number],) if ":" in device else there)


def devices_there(device: str, client: Any) -> Devices:
    """What workers of a cluster compute on: `auto` is CUDA where every worker has it, else the CPU.

    Each sees what it was started with: workers of dask-cuda one device each.

    Raises:
        UsageError: `device` is no device.
    """
    _check(device)
    if device != "auto":
        return Devices(device)
    client.wait_for_workers(1)
    counts = client.run(_count).values()
    return Devices("cuda" if all(counts) else "cpu")


def cuda_devices() -> tuple[str, ...]:
    """The CUDA devices that torch can use here, as CUDA_VISIBLE_DEVICES has them."""
    count = _count()
    named = [name.strip() for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name.strip()]
    return tuple(named[:count] or map(str, range(count)))


def _count() -> int:
    return torch.cuda.device_count() if torch.cuda.is_available() else 0


def _check(device: str) -> None:
    if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", device):
        raise UsageError(f"{device!r} is no device: take auto, cpu, cuda or one such as cuda:1.")
