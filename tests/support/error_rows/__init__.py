"""What a row of docs/errors.md is, and how it is tried."""

from __future__ import annotations

import os
import re
import shlex
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import torch

from sparsegpt_core.checkpoints import save_checkpoint
from sparsegpt_core.zoo import ModelShape, build_model

ANYTHING = "…"
"""Stands in a line for what a library says in its own words, which change with its version."""


@dataclass(frozen=True)
class Row:
    """One input and what becomes of it.

    ``command`` runs in a folder that holds the input; ``line`` is what it prints without ``error:``, whole.
    ``left`` is what is new on disk. ``test`` names a test elsewhere that does it; else the row's own module does.
    """

    wrong: str
    command: str
    line: str
    code: int = 1
    left: str = ""
    test: str = ""

    def __str__(self) -> str:
        return f"{self.command}: {self.wrong}"


def check(row: Row, cli, folder: Path, monkeypatch) -> None:
    """Run a row's command in the folder of inputs: it must end as the row says and leave the folder as it was."""
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "path", [*sys.path])  # a factory's folder is added
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    before = snapshot(folder)
    outcome = cli(*shlex.split(row.command), "--quiet")
    new = {name for name, state in snapshot(folder).items() if before.get(name) != state}
    assert outcome.code == row.code, outcome.err
    assert ", ".join(sorted(new)) == row.left
    assert before.keys() <= snapshot(folder).keys()
    for name in new:
        (folder / name).rmdir() if (folder / name).is_dir() else (folder / name).unlink()
    kind = "error" if row.code else "warning"
    lines = [line for line in outcome.err.splitlines() if line.startswith(f"{kind}: ") or row.code]
    random = ("warning: no --weights", "warning: the dense network is no better than chance")  # of save_good
    lines = [line for line in lines if not line.startswith(random)]
    assert matches(row.line, "\n".join(lines).removeprefix(f"{kind}: ")), outcome.err


def snapshot(folder: Path) -> dict[str, tuple[int, int]]:
    """Every file below a folder with its size and time."""
    found = {}
    for parent, folders, names in os.walk(folder):
        for path in (Path(parent, name) for name in (*folders, *names)):
            status = path.lstat()
            state = (0, 0) if path.name in folders else (status.st_size, status.st_mtime_ns)
            found[str(path.relative_to(folder))] = state
    return found


def matches(line: str, text: str) -> bool:
    """Tell whether a text is a row's line, with anything where it says so."""
    return re.fullmatch(re.escape(line).replace(ANYTHING, ".*"), text) is not None


def save_good(path: Path, data: str = "digits") -> None:
    """Write a checkpoint of ``simple_cnn`` for digits, with random weights. It records the data."""
    torch.manual_seed(0)
    notes = {
        "model": "simple_cnn",
        "data": data,
        "image": [1, 8, 8],
        "num_classes": 10,
        "mean": [0.5],
        "std": [0.25],
    }
    save_checkpoint(path, build_model("simple_cnn", ModelShape((1, 8, 8), 10)).state_dict(), notes)


def spoil(folder: Path, suffixes: Iterable[str]) -> None:
    """Make a file of each suffix in every way that a file can be unreadable: ``empty.pt``, ``text.pt``, ..."""
    for suffix in suffixes:
        (folder / f"empty.{suffix}").touch()
        (folder / f"text.{suffix}").write_text("hello\n")
        (folder / f"loop.{suffix}").symlink_to(f"loop.{suffix}")
        (folder / f"folder.{suffix}").mkdir()
        # Opens, and then fails as a broken disk does, for root too.
        (folder / f"unreadable.{suffix}").symlink_to("/proc/self/mem")
