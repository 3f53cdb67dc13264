"""What figures were measured on."""

from __future__ import annotations

import os
import platform
import time
from pathlib import Path

import numpy as np
import torch

CORES = len(os.sched_getaffinity(0))

Figures = dict[str, object]


def machine(benchmark: str) -> Figures:
    """Date, processor, GPU, versions, and whether anybody else was at work."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    cpu = next((line.split(":")[1].strip() for line in lines if "model name" in line), "")
    return {
        "benchmark": benchmark,
        "date": time.strftime("%Y-%m-%d"),
        "machine": f"{cpu or platform.machine()}, {CORES} usable cores",
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "threads_per_process": int(os.environ["OMP_NUM_THREADS"]),
        "load_before": round(os.getloadavg()[0], 1),
        "versions": {"torch": torch.__version__, "numpy": np.__version__},
    }
