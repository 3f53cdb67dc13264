"""SIGTERM is held back until what is in hand has ended, and a second one is not."""

from __future__ import annotations

import os
import signal
import threading

import pytest

from tnet_geo.operations.stopping import held_sigterm


def test_the_first_sigterm_is_noted_and_ends_the_process_behind_the_block() -> None:
    before = signal.getsignal(signal.SIGTERM)
    finished = []

    def work() -> None:
        with held_sigterm() as stop:
            assert not stop.asked
            os.kill(os.getpid(), signal.SIGTERM)
            assert stop.asked
            finished.append("what is in hand")

    with pytest.raises(SystemExit) as end:
        work()
    assert (finished, end.value.code) == (["what is in hand"], 143)
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_second_sigterm_ends_it_at_once() -> None:
    before = signal.getsignal(signal.SIGTERM)
    finished = []

    def work() -> None:
        with held_sigterm():
            os.kill(os.getpid(), signal.SIGTERM)
            os.kill(os.getpid(), signal.SIGTERM)
            finished.append("never")

    with pytest.raises(SystemExit) as end:
        work()
    assert (finished, end.value.code) == ([], 143)
    assert signal.getsignal(signal.SIGTERM) is before


def test_without_a_signal_and_in_other_threads_nothing_is_held() -> None:
    before = signal.getsignal(signal.SIGTERM)
    seen = []

    def elsewhere() -> None:
        with held_sigterm() as stop:
            seen.append((stop.asked, signal.getsignal(signal.SIGTERM)))

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    with held_sigterm() as stop:
        pass
    assert seen == [(False, before)]
    assert not stop.asked
