"""Ctrl-C while native code runs."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator

import pytest

from deploy.machine import run_interruptibly
from sparsegpt_core.interrupts import defer_interrupts

SIGNALS = (signal.SIGINT, signal.SIGTERM)


@pytest.fixture(autouse=True)
def _handlers() -> Iterator[None]:
    """Python's handler for both signals: a background job has SIGINT ignored."""
    before = {number: signal.signal(number, signal.default_int_handler) for number in SIGNALS}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def test_results_and_errors_reach_the_caller() -> None:
    assert run_interruptibly(lambda: threading.current_thread(), lambda: None) is not threading.current_thread()
    with pytest.raises(ZeroDivisionError):
        run_interruptibly(lambda: 1 // 0, lambda: None)


def test_an_interrupt_stops_the_work() -> None:
    stopped, ended = threading.Event(), threading.Event()

    def work() -> None:
        os.kill(os.getpid(), signal.SIGINT)
        if stopped.wait(60):
            ended.set()

    with pytest.raises(KeyboardInterrupt):
        run_interruptibly(work, stopped.set)
    assert ended.wait(60)


@pytest.mark.parametrize("number", SIGNALS)
def test_interrupts_wait_for_the_end_of_the_block(number: signal.Signals) -> None:
    done = []

    def work() -> None:
        with defer_interrupts():
            os.kill(os.getpid(), number)
            done.append(True)

    with pytest.raises(KeyboardInterrupt):
        work()
    assert done
    assert signal.getsignal(number) is signal.default_int_handler


def test_other_threads_receive_no_interrupts() -> None:
    def work() -> int:
        with defer_interrupts():
            return 1

    assert run_interruptibly(work, lambda: None) == 1


class Driver(threading.local):
    """The two functions of libcuda that are needed: each thread has a current context."""

    current = None

    def cuCtxGetCurrent(self, context) -> int:
        context._obj.value = self.current
        return 0

    def cuCtxSetCurrent(self, context) -> int:
        self.current = context.value
        return 0


def test_work_uses_the_callers_cuda_context(monkeypatch: pytest.MonkeyPatch) -> None:
    """A new thread has none, and TensorRT would build for the first GPU."""
    driver = Driver()
    monkeypatch.setattr("ctypes.CDLL", lambda name: driver)
    assert run_interruptibly(lambda: driver.current, lambda: None) is None
    driver.current = 0x7FFF12345678
    assert run_interruptibly(lambda: driver.current, lambda: None) == 0x7FFF12345678
