"""Reads inputs in a process, and watches that process for time, memory and crashes."""

from __future__ import annotations

import contextlib
import faulthandler
import multiprocessing
import os
import random
import resource
import signal
import time
import traceback
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import NoReturn, Protocol

import psutil

from sparsegpt_core.errors import SparseGPTError

__all__ = ["MAX_BYTES", "MAX_SECONDS", "Outcome", "Reader", "Worker", "input_of", "limit_addresses"]

MAX_SECONDS = 10.0  # of the processor; the clock may take six times as long, because a busy machine is not a hang
MAX_BYTES = 2 << 30
_ROOM = 4 << 30  # bytes of addresses beyond those after the start; memory that is reserved but not used is fine


class Reader(Protocol):
    """The part of a target that a worker needs."""

    def make(self, rng: random.Random) -> bytes:
        """Return an input."""

    def plain(self) -> bytes:
        """Return a correct input."""

    def lay_out(self, folder: Path) -> Path:
        """Prepare a folder; return the path for inputs."""

    @property
    def read(self) -> Callable[[Path], object]:
        """Reads an input."""


@dataclass(frozen=True)
class Outcome:
    """The outcome of an input."""

    kind: str
    """``accepted``, ``refused``, or the failure."""
    place: str = ""
    """The line of this project that raised the error."""
    detail: str = ""
    """The traceback or message."""
    peak: int = 0
    """The worker's largest memory so far, in bytes."""


def input_of(target: Reader, name: str, seed: int, number: int) -> bytes:
    """Return an input. The same arguments give the same input in every process."""
    return target.make(random.Random(f"{seed} {name} {number}"))


class Worker:
    """A process that reads one input after another. If an input ends it, another one is forked with all imports done.

    Args:
        load: Returns the targets in the process. It must be importable by its name.
        folder: The folder for the process's files.
        seed: The seed of all inputs.
    """

    def __init__(self, load: Callable[[], Mapping[str, Reader]], folder: Path, seed: int) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, other = context.Pipe()
        self._keeper = context.Process(target=_keep, args=(load, folder, seed, other), daemon=True)
        self._keeper.start()
        other.close()
        self._reader: int = self._pipe.recv()

    def run(self, name: str, number: int) -> Outcome:
        """Read an input in the process."""
        reader = psutil.Process(self._reader)
        before = sum(reader.cpu_times()[:2])  # before the input, which may end the process at once
        self._pipe.send((name, number))
        timely = self._answers(reader, before)
        if not timely:
            os.kill(self._reader, signal.SIGUSR1)  # prints its stack
            time.sleep(1)
            os.kill(self._reader, signal.SIGKILL)
        outcome: Outcome = self._pipe.recv()
        if timely and outcome.kind != "dead":
            if outcome.peak <= MAX_BYTES and outcome.kind != "MemoryError":
                return outcome
            os.kill(self._reader, signal.SIGKILL)
            self._pipe.recv()
            outcome = replace(outcome, kind="over 2 GiB")
        elif not timely:
            ended = (
                self._pipe.recv() if outcome.kind != "dead" else outcome
            )  # it may have answered just before the kill
            outcome = replace(ended, kind="over 10 s")
        self._reader = self._pipe.recv()
        return outcome

    def _answers(self, reader: psutil.Process, before: float) -> bool:
        """Wait for an answer; return whether it came in time, by the processor seconds since ``before``."""
        start = time.monotonic()
        while not self._pipe.poll(0.5):
            with contextlib.suppress(psutil.Error):  # a dead process, which the keeper reports
                used = sum(reader.cpu_times()[:2]) - before
                if used > MAX_SECONDS or time.monotonic() - start > 6 * MAX_SECONDS:
                    return False
        return True

    def close(self) -> None:
        """Stop the processes."""
        self._keeper.kill()
        self._keeper.join()
        with contextlib.suppress(ProcessLookupError):  # it stops by itself when its pipe closes
            os.kill(self._reader, signal.SIGKILL)
        self._pipe.close()


def _keep(load: Callable[[], Mapping[str, Reader]], folder: Path, seed: int, pipe: Connection) -> None:
    """Prepare all targets, then fork a reader, and another whenever one dies. Report the last output of a dead one."""
    folder.mkdir(parents=True, exist_ok=True)
    faulthandler.enable()
    faulthandler.register(signal.SIGUSR1)
    warnings.simplefilter("ignore")
    targets = load()
    path = folder / "stderr.txt"
    with path.open("wb") as log:
        for stream in (1, 2):
            os.dup2(log.fileno(), stream)
    paths = {name: target.lay_out(folder / name) for name, target in targets.items()}
    for name, target in targets.items():  # first calls are slow
        paths[name].write_bytes(target.plain())
        _read(target, paths[name])
    limit_addresses()
    while True:
        os.truncate(2, 0)
        reader = os.fork()
        if not reader:
            _serve(targets, paths, seed, pipe)
        status = os.waitpid(reader, 0)[1]
        detail = f"wait status {status}\n{path.read_text(errors='replace')[-4000:]}"
        pipe.send(Outcome("dead", _place(detail), detail))


def _serve(targets: Mapping[str, Reader], paths: Mapping[str, Path], seed: int, pipe: Connection) -> NoReturn:
    try:
        pipe.send(os.getpid())
        while True:
            name, number = pipe.recv()
            paths[name].write_bytes(input_of(targets[name], name, seed, number))
            pipe.send(_read(targets[name], paths[name]))
    except (EOFError, OSError):  # the parent process is gone
        os._exit(0)


def limit_addresses() -> None:
    """Limit the memory that this process and its forks may reserve to a few GiB more than now."""
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + _ROOM, resource.RLIM_INFINITY))  # a soft limit, which forks replace
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _read(target: Reader, path: Path) -> Outcome:
    kind, place, detail = "accepted", "", ""
    try:
        target.read(path)
    except SparseGPTError as error:
        kind = "refused"
        if "\n" in str(error) or len(str(error)) > 4000:
            kind, detail = "long message", str(error)[:4000]
    except BaseException as error:
        kind, detail = type(error).__name__, traceback.format_exc()[-4000:]
        place = _place(detail)
    return Outcome(kind, place, detail, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)


def _place(detail: str) -> str:
    """Return the innermost line of this project in a traceback. faulthandler's tracebacks have the innermost first."""
    root = str(Path(__file__).parents[2])
    lines = [line.strip() for line in detail.splitlines() if f'File "{root}/' in line]
    ours = [line for line in lines if ".venv" not in line and "/benchmarks/" not in line]
    return (ours[0 if "most recent call first" in detail else -1] if ours else "").replace(f"{root}/", "")
