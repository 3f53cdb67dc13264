"""Memory of a pass that is used again by the next one."""

from __future__ import annotations

import resource
import sys

import pytest
import torch

from tnet_geo.inference.allocator import keep_freed_memory

PAGES = (64 << 20) // resource.getpagesize()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only glibc's allocator is told anything")
def test_what_a_pass_has_freed_is_not_asked_of_the_system_again() -> None:
    keep_freed_memory()

    def faults() -> int:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        torch.ones(16 << 20)  # 64 MiB, written and freed
        return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

    faults()
    assert min(faults() for _ in range(5)) < PAGES // 10
