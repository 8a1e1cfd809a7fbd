"""Readers that fail in every way, for the fuzzer's own test. Imports little: each worker loads it anew."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from sparsegpt_core.errors import InputError


@dataclass(frozen=True)
class Fake:
    """A reader to which nothing is done before a seed was read."""

    fail: Callable[[], object]

    def make(self, rng: random.Random) -> bytes:
        return b"changed %d" % rng.randrange(1000)

    def plain(self) -> bytes:
        return b"plain"

    def lay_out(self, folder: Path) -> Path:
        folder.mkdir(parents=True, exist_ok=True)
        return folder / "input"

    def read(self, path: Path) -> None:
        if path.read_bytes() != b"plain":
            self.fail()


def _refuse() -> None:
    raise InputError("not this one")


def _lack() -> None:
    raise KeyError("what a reader forgot")


def _spin() -> None:
    while True:
        pass


def load() -> dict[str, Fake]:
    """Return the readers by how they fail."""
    fails = {
        "accepted": lambda: None,
        "refused": _refuse,
        "KeyError": _lack,
        "dead": os.abort,
        "over 10 s": _spin,
        "asleep": lambda: time.sleep(1000),
        "over 2 GiB": lambda: b"x" * (400 << 20),
        "no memory": lambda: bytes(1 << 40),
    }
    return {name: Fake(fail) for name, fail in fails.items()}


def load_some(names: list[str]) -> dict[str, Fake]:
    """Return the readers of these names."""
    return {name: load()[name] for name in names}
