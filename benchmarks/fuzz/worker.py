"""A process that reads inputs, and the one that watches it: over time, over memory, dead, or fine."""

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

__all__ = ["MOST_BYTES", "MOST_SECONDS", "Outcome", "Reader", "Worker", "input_of", "limit_addresses"]

MOST_SECONDS = 10.0  # of the processor; of the clock six times as many, since a busy machine is not a hang
MOST_BYTES = 2 << 30
_ROOM = 4 << 30  # of addresses beyond those after start: where memory is asked for and not used, that is no finding


class Reader(Protocol):
    """What a worker needs of a target."""

    def make(self, rng: random.Random) -> bytes:
        """Return an input."""

    def plain(self) -> bytes:
        """Return an input that nothing is wrong with."""

    def lay_out(self, folder: Path) -> Path:
        """Prepare a folder; return where inputs go."""

    @property
    def read(self) -> Callable[[Path], object]:
        """Reads it."""


@dataclass(frozen=True)
class Outcome:
    """What came of an input: ``accepted``, ``refused``, or what is wrong; and the worker's largest memory so far.

    ``place`` is where in this project an error came from; ``detail`` is all that is known.
    """

    kind: str
    place: str = ""
    detail: str = ""
    peak: int = 0


def input_of(target: Reader, name: str, seed: int, number: int) -> bytes:
    """Return an input, the same wherever it is asked for."""
    return target.make(random.Random(f"{seed} {name} {number}"))


class Worker:
    """A process for one input after another; forked anew, with all imports done, where one of them ends it.

    Args:
        load: Returns the targets, in the process; importable by its name.
        folder: For the process's own files.
        seed: Of all inputs.
    """

    def __init__(self, load: Callable[[], Mapping[str, Reader]], folder: Path, seed: int) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, other = context.Pipe()
        self._keeper = context.Process(target=_keep, args=(load, folder, seed, other), daemon=True)
        self._keeper.start()
        other.close()
        self._reader: int = self._pipe.recv()

    def run(self, name: str, number: int) -> Outcome:
        """Have an input read."""
        self._pipe.send((name, number))
        timely = self._answers()
        if not timely:
            os.kill(self._reader, signal.SIGUSR1)  # which has it say where it is
            time.sleep(1)
            os.kill(self._reader, signal.SIGKILL)
        outcome: Outcome = self._pipe.recv()
        if timely and outcome.kind != "dead":
            if outcome.peak <= MOST_BYTES and outcome.kind != "MemoryError":
                return outcome
            os.kill(self._reader, signal.SIGKILL)
            self._pipe.recv()
            outcome = replace(outcome, kind="over 2 GiB")
        elif not timely:
            ended = self._pipe.recv() if outcome.kind != "dead" else outcome  # it may have answered just before
            outcome = replace(ended, kind="over 10 s")
        self._reader = self._pipe.recv()
        return outcome

    def _answers(self) -> bool:
        """Wait for an answer; false where none comes in time."""
        reader = psutil.Process(self._reader)
        before, start = sum(reader.cpu_times()[:2]), time.monotonic()
        while not self._pipe.poll(0.5):
            with contextlib.suppress(psutil.Error):  # dead, which will be told
                used = sum(reader.cpu_times()[:2]) - before
                if used > MOST_SECONDS or time.monotonic() - start > 6 * MOST_SECONDS:
                    return False
        return True

    def close(self) -> None:
        """End the processes."""
        self._keeper.kill()
        self._keeper.join()
        with contextlib.suppress(ProcessLookupError):  # it ends by itself where its pipe does
            os.kill(self._reader, signal.SIGKILL)
        self._pipe.close()


def _keep(load: Callable[[], Mapping[str, Reader]], folder: Path, seed: int, pipe: Connection) -> None:
    """Prepare all targets, then fork a reader, and another where one dies, of which is told what it wrote last."""
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
    except (EOFError, OSError):  # whoever asked is gone
        os._exit(0)


def limit_addresses() -> None:
    """Let this process, and those that it forks, ask for some GiB more and no further."""
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + _ROOM, resource.RLIM_INFINITY))  # soft: forks set their own
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
    """Return the innermost line of this project in a traceback, faulthandler's (innermost first) included."""
    root = str(Path(__file__).parents[2])
    lines = [line.strip() for line in detail.splitlines() if f'File "{root}/' in line]
    ours = [line for line in lines if ".venv" not in line and "/benchmarks/" not in line]
    return (ours[0 if "most recent call first" in detail else -1] if ours else "").replace(f"{root}/", "")
