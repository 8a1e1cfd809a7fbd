"""``sweep --cluster``: cells go to any executor of ``concurrent.futures``; a worker that dies loses its cell only."""

from __future__ import annotations

import contextlib
import json
import os
import re
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO

import numpy as np
import pytest
import torch

from sparsegpt_cli.sweep import runner
from sparsegpt_cli.sweep.executors import each_in_executor
from sparsegpt_core.checkpoints import save_checkpoint
from sparsegpt_core.user_code import import_object
from tests.support.paths import ROOT
from tests.support.processes import fail

NETWORK = """
import os, signal
from concurrent.futures import ThreadPoolExecutor
from torch import nn

def net():
    if "DOOMED" in os.environ:
        os.kill(os.getpid(), signal.SIGKILL)  # as the kernel does where memory is short
    body = [nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 16, 3, padding=1), nn.ReLU()]
    return nn.Sequential(*body, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 4))

def threads():
    return ThreadPoolExecutor(3)

def number():
    return 7

def needs_an_argument(argument):
    return argument
"""
GRID = ("--method", "magnitude", "--method", "sparsegpt", "--pattern", "2:4", "--pattern", "1:4")
GRID += ("--samples", 8, "--samples", 16, "--seeds", 0, "--seeds", 1)  # ten cells


@pytest.fixture
def grid(tmp_path, monkeypatch):
    """The options of a sweep without ``--out``; relative paths name all of its files."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    Path("mine.py").write_text(NETWORK)
    torch.manual_seed(0)
    save_checkpoint(Path("net.safetensors"), import_object("mine.py:net")().state_dict(), {"model": "mine.py:net"})
    generator = np.random.default_rng(0)
    for name, count in (("train", 16), ("val", 40)):
        images = generator.integers(0, 256, (count, 3, 8, 8), dtype=np.uint8)
        np.savez(f"{name}.npz", images=images, labels=np.arange(count) % 4)
    data = ("--data", "npz:train.npz", "--eval-data", "npz:val.npz")
    return ("sweep", "--weights", "net.safetensors", "--model", "mine.py:net", *data, *GRID)


@pytest.fixture
def expected(grid, cli, monkeypatch):
    """What a sweep without a cluster writes."""
    threads = torch.get_num_threads()
    with monkeypatch.context() as patch:
        patch.setattr(
            runner, "each_in_processes", lambda function, items, _: ((each, function(each)) for each in items)
        )
        assert cli(*grid, "--out", "here").code == 0
    torch.set_num_threads(threads)
    return results(Path("here"))


def results(folder: Path) -> dict[str, bytes]:
    """The bytes of all files, but for the seconds that cells took and the workers."""
    found = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    for name in ("sweep.json", "results.csv", "results.parquet"):  # have seconds, or the workers
        found[name] = b""
    for name, content in found.items():
        if name.startswith("cells"):
            cell = json.loads(content)
            cell["result"]["seconds"] = cell["sha256"] = None
            found[name] = json.dumps(cell).encode()
    return found


@contextlib.contextmanager
def dask_process(*arguments: object, **environment: str) -> Iterator[IO[str]]:
    """Run a scheduler or a worker of Dask elsewhere; give its messages, and end it."""
    command = [sys.executable, "-m", "distributed.cli.dask_" + str(arguments[0]), *map(str, arguments[1:])]
    paths = {"PYTHONPATH": os.pathsep.join((str(ROOT), os.environ.get("PYTHONPATH", "")))}
    running = subprocess.Popen(
        [*command, "--no-dashboard"],
        env={**os.environ, **paths, "OMP_NUM_THREADS": "1", **environment},
        cwd="/",
        stderr=subprocess.PIPE,
        text=True,
    )
    assert running.stderr is not None
    with running:
        try:
            yield running.stderr
        finally:
            running.terminate()


def wait_for(pattern: str, messages: IO[str]) -> str:
    """Read messages up to one that matches, and return its group."""
    seen = []
    for line in messages:
        seen.append(line)
        if match := re.search(pattern, line):
            return match[1]
    raise AssertionError("".join(seen))


@pytest.fixture(scope="module")
def cluster():
    """The address of a scheduler with a worker that starts again when it is killed, and one that its first cell kills.

    No item is tried on a second worker by Dask itself.
    """
    pytest.importorskip("distributed")
    with contextlib.ExitStack() as running:
        tried_once = {"DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES": "0"}
        scheduler = running.enter_context(dask_process("scheduler", "--host", "127.0.0.1", "--port", 0, **tried_once))
        address = wait_for(r"Scheduler at:\s+(tcp://\S+)", scheduler)
        for arguments, doomed in (("--nthreads", 1), {}), (("--nthreads", 2, "--no-nanny"), {"DOOMED": "1"}):
            worker = running.enter_context(dask_process("worker", address, *arguments, **doomed))
            wait_for(r"Registered to:\s+(\S+)", worker)
        yield address


def test_the_death_of_a_worker_changes_no_result(cluster, grid, expected, program, tmp_path):
    done = program(*grid, "--cluster", cluster, "--out", "out", "--json", cwd=tmp_path)
    assert (done.code, done.json["failed"], done.json["computed"]) == (0, [], 10), done.err
    assert f"2 workers at {cluster}" in done.err
    assert "warning: 1 of 2 workers take several cells and compute one at a time" in done.err
    assert results(Path("out")) == expected


LOST = """
import sys
from sparsegpt_cli.messages import SILENT
from sparsegpt_cli.sweep.executors import each_in_executor, open_executor
from tests.support.processes import square
with open_executor(sys.argv[1], SILENT) as executor:
    for item, result in each_in_executor(square, range(6), executor):
        print(item, type(result).__name__ if isinstance(result, Exception) else result)
"""


def test_an_item_that_no_worker_survives_is_lost_alone(cluster):
    done = subprocess.run(
        [sys.executable, "-c", LOST, cluster], cwd=ROOT, capture_output=True, text=True, timeout=100, check=False
    )
    assert done.returncode == 0, done.stderr
    assert sorted(done.stdout.splitlines()) == ["0 0", "1 1", "2 4", "3 KilledWorker", "4 16", "5 25"]


def test_threads_take_one_cell_at_a_time(grid, expected, cli):
    done = cli(*grid, "--cluster", "mine.py:threads", "--out", "out", "--json")
    assert (done.code, done.json["computed"]) == (0, 10), done.err
    assert results(Path("out")) == expected
    assert json.loads(Path("out/sweep.json").read_text())["executor"] == "ThreadPoolExecutor"


def test_an_exception_is_the_result_of_its_item_only():
    with ThreadPoolExecutor(2) as executor:
        found = dict(each_in_executor(fail_on_one, range(4), executor))
    assert isinstance(found.pop(1), LookupError)
    assert found == {0: 0, 2: 2, 3: 3}


def test_waiting_items_are_cancelled_at_the_end():
    started, released = [], threading.Event()

    def wait(item: int) -> None:
        started.append(item)
        if item:
            released.wait(60)

    with ThreadPoolExecutor(1) as executor:
        with contextlib.closing(each_in_executor(wait, range(5), executor)) as found:
            next(found)
        released.set()
    assert started in ([0], [0, 1])


def fail_on_one(number: int) -> int:
    if number == 1:
        fail(number)
    return number


@pytest.fixture
def nobody():
    """An address at which nothing listens."""
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        yield f"tcp://127.0.0.1:{reserved.getsockname()[1]}"


def test_a_cluster_that_cannot_be_used_is_one_line(grid, cli, nobody):
    wrong = {
        "mine.py:number gives no executor of concurrent.futures but int": ("--cluster", "mine.py:number"),
        "cannot call mine.py:needs_an_argument": ("--cluster", "mine.py:needs_an_argument"),
        "mine.py has no thread. Did you mean mine.py:threads?": ("--cluster", "mine.py:thread"),
        "--jobs counts processes on this machine": ("--cluster", nobody, "--jobs", 2),
    }
    for message, options in wrong.items():
        done = cli(*grid, *options, "--out", "out", "--quiet")
        assert (done.code, done.err.count("\n")) == (1, 1), done.err
        assert message in done.err
        assert not Path("out").exists()


def test_a_missing_dask_is_one_line(grid, cli, nobody, monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    done = cli(*grid, "--cluster", nobody, "--out", "out", "--quiet")
    assert (done.code, done.err.count("\n")) == (1, 1), done.err
    assert "Install it: pip install distributed." in done.err


def test_a_scheduler_that_does_not_answer_is_one_line(grid, cli, nobody):
    pytest.importorskip("distributed")
    import dask

    with dask.config.set({"distributed.comm.timeouts.connect": "1s"}):
        done = cli(*grid, "--cluster", nobody, "--out", "out", "--quiet")
    assert (done.code, done.err.count("\n")) == (1, 1), done.err
    assert f"no Dask scheduler answers at {nobody}" in done.err
    assert not Path("out").exists()
