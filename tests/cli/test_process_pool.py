"""A pool of processes: a dying process loses only its own item, and no process outlives its parent."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from sparsegpt_cli.process_pool import each_in_processes
from tests.support.paths import ROOT
from tests.support.processes import die_between, fail, sleep_in, square

OUTLIVED = """
import signal, sys
from sparsegpt_cli.process_pool import each_in_processes
from tests.support.processes import sleep_in
signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job has it ignored
if __name__ == "__main__":
    for _ in each_in_processes(sleep_in, [sys.argv[1]] * 2, 2):
        pass
"""


def wait_for(condition, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


def pids(folder: Path) -> list[int]:
    return [int(path.name) for path in folder.iterdir() if path.name.isdigit()]


def alive(folder: Path) -> bool:
    return any(psutil.pid_exists(pid) and psutil.Process(pid).status() != "zombie" for pid in pids(folder))


@pytest.mark.parametrize("jobs", [1, 3])
def test_a_process_that_dies_loses_one_item(jobs):
    found = dict(each_in_processes(square, range(8), jobs))
    assert found == {number: None if number == 3 else number * number for number in range(8)}


def test_a_process_that_dies_between_items_loses_none():
    found = []
    with contextlib.closing(each_in_processes(die_between, range(3), 1)) as outcomes:
        for _, pid in outcomes:
            found.append(pid)
            time.sleep(0.4 if len(found) == 1 else 0)
    assert len(found) == 3
    assert len(set(found) - {None}) == 2  # at most the item that was already handed over is lost


def test_an_exception_ends_all_processes():
    with pytest.raises(LookupError, match="no 0"):
        list(each_in_processes(fail, [0], 1))


def test_no_items():
    assert list(each_in_processes(square, [], 4)) == []


def test_workers_end_when_the_generator_is_closed(tmp_path):
    outcomes = each_in_processes(sleep_in, [str(tmp_path), str(tmp_path)], 2)

    def interrupt(*_):
        if len(pids(tmp_path)) == 2:
            raise KeyboardInterrupt
        signal.setitimer(signal.ITIMER_REAL, 0.1)

    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.1)
        with pytest.raises(KeyboardInterrupt):
            next(outcomes)
    finally:
        signal.signal(signal.SIGALRM, before)
    assert len(pids(tmp_path)) == 2
    assert not alive(tmp_path)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_workers_do_not_outlive_their_parent(tmp_path, number):
    """Ctrl-C reaches the whole group; only the parent prints a traceback."""
    script = tmp_path / "outlived.py"
    script.write_text(OUTLIVED)
    folder = tmp_path / "pids"
    folder.mkdir()
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    parent = subprocess.Popen(
        [sys.executable, script, folder], env=environment, start_new_session=True, stderr=subprocess.PIPE, text=True
    )
    wait_for(lambda: len(pids(folder)) == 2)
    if number == signal.SIGKILL:
        parent.kill()
    else:
        os.killpg(parent.pid, number)
    _, stderr = parent.communicate(timeout=60)
    wait_for(lambda: not alive(folder), 10)
    assert stderr.count("Traceback") == (number == signal.SIGINT)
