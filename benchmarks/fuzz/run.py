"""Runs the fuzzer: ``python -m benchmarks.fuzz.run --minutes 20``. Exits with 1 if it found anything."""

from __future__ import annotations

import argparse
import os
import random
import tempfile
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from threading import Lock

from benchmarks.fuzz.worker import Outcome, Reader, Worker, input_of, limit_addresses
from sparsegpt_core.files import write_bytes, write_json, write_text

FINE = ("accepted", "refused")


@dataclass
class Count:
    """The outcomes of one target's inputs. ``seconds`` is the sum over all workers."""

    inputs: int = 0
    accepted: int = 0
    refused: int = 0
    findings: int = 0
    seconds: float = 0.0
    slowest_seconds: float = 0.0


@dataclass
class Finding:
    """A kind of failure: its first input, and the number of inputs that failed in the same way."""

    target: str
    kind: str
    place: str
    file: str
    count: int = 1


@dataclass
class Tally:
    """The state of a run. The target with the least time so far is the next one."""

    seed: int
    targets: dict[str, Count]
    most: int | None = None
    findings: dict[tuple[str, str, str], Finding] = field(default_factory=dict)
    peak_bytes: int = 0
    lock: Lock = field(default_factory=Lock)

    def draw(self) -> tuple[str, int] | None:
        """Return the next target and the number of its input; None after the last."""
        with self.lock:
            if sum(count.inputs for count in self.targets.values()) == self.most:
                return None
            name = min(self.targets, key=lambda each: (self.targets[each].seconds, self.targets[each].inputs))
            count = self.targets[name]
            count.inputs += 1
            return name, count.inputs

    def add(self, name: str, outcome: Outcome, seconds: float, content: Path) -> Finding | None:
        """Count an outcome; return its finding if it is a new one."""
        with self.lock:
            count = self.targets[name]
            count.seconds += seconds
            count.slowest_seconds = max(count.slowest_seconds, seconds)
            self.peak_bytes = max(self.peak_bytes, outcome.peak)
            if outcome.kind in FINE:
                setattr(count, outcome.kind, getattr(count, outcome.kind) + 1)
                return None
            count.findings += 1
            key = name, outcome.kind, outcome.place
            if key in self.findings:
                self.findings[key].count += 1
                return None
            self.findings[key] = Finding(*key, str(content))
            return self.findings[key]

    def to_json(self) -> dict[str, object]:
        """Return the content of ``--json``."""
        return {
            "seed": self.seed,
            "inputs": sum(count.inputs for count in self.targets.values()),
            "peak_bytes": self.peak_bytes,
            "targets": {name: asdict(count) for name, count in self.targets.items()},
            "findings": [asdict(finding) for finding in self.findings.values()],
        }


def load(names: list[str]) -> Mapping[str, Reader]:
    """Return the named targets, or all if none is named. Their imports take seconds."""
    from benchmarks.fuzz.targets import TARGETS

    return {name: TARGETS[name] for name in names or TARGETS}


def fuzz(names: list[str], seconds: float, seed: int, jobs: int, folder: Path, most: int | None = None) -> Tally:
    """Fuzz some targets.

    Args:
        names: The targets' names.
        seconds: After this time no new input begins.
        seed: The seed of all inputs.
        jobs: The number of processes.
        folder: The folder for inputs that fail, each with a text about its failure.
        most: The largest number of inputs; None for no limit.
    """
    targets = load(names)
    tally = Tally(seed, {name: Count() for name in names}, most)

    def work(number: int) -> None:
        worker = Worker(partial(load, names), Path(scratch, str(number)), seed)
        end = time.monotonic() + seconds
        try:
            while time.monotonic() < end and (drawn := tally.draw()):
                name, index = drawn
                start = time.monotonic()
                outcome = worker.run(name, index)
                path = folder / f"{name.replace(' ', '-')}-{seed}-{index}"
                found = tally.add(name, outcome, time.monotonic() - start, path)
                if found:
                    write_bytes(path, input_of(targets[name], name, seed, index))
                    write_text(Path(f"{path}.txt"), f"{found.target}: {found.kind}\n{found.place}\n{outcome.detail}\n")
                    print(f"found: {found.target}: {found.kind} {found.place}: {path}", flush=True)
        finally:
            worker.close()

    with tempfile.TemporaryDirectory() as scratch, ThreadPoolExecutor(jobs) as pool:
        list(pool.map(work, range(jobs)))
    return tally


def main() -> int:
    """Run the fuzzer; return 1 if it found anything."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=20)
    parser.add_argument("--inputs", type=int, help="The largest number of inputs.")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(2**32))
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    parser.add_argument("--target", action="append", choices=[*load([])], help="Only this one; may be repeated.")
    parser.add_argument("--findings", type=Path, default=Path("out/fuzz"), help="The folder for inputs that fail.")
    parser.add_argument("--json", type=Path, help="The file for the counts.")
    given = parser.parse_args()
    limit_addresses()
    print(f"seed {given.seed}, {given.minutes:g} minutes, {given.jobs} processes", flush=True)
    names = given.target or [*load([])]
    tally = fuzz(names, 60 * given.minutes, given.seed, given.jobs, given.findings, given.inputs)
    print(f"{'target':<15}{'inputs':>9}{'accepted':>9}{'refused':>9}{'findings':>9}{'slowest':>9}")
    for name, count in tally.targets.items():
        counts = f"{count.inputs:>9}{count.accepted:>9}{count.refused:>9}{count.findings:>9}"
        print(f"{name:<15}{counts}{count.slowest_seconds:>7.2f} s")
    for finding in tally.findings.values():
        print(f"{finding.count} × {finding.target}: {finding.kind} {finding.place}: {finding.file}")
    print(f"largest memory {tally.peak_bytes / 2**20:.0f} MiB")
    if given.json:
        write_json(given.json, tally.to_json())
    return int(bool(tally.findings))


if __name__ == "__main__":
    raise SystemExit(main())
