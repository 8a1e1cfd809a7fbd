"""The cells of a sweep. Loads no torch."""

from __future__ import annotations

import difflib
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sparsegpt_cli.sweep.methods import METHODS
from sparsegpt_core.errors import InputError
from sparsegpt_core.patterns import parse_pattern

__all__ = ["Cell", "Grid", "checkpoint_name", "slug"]

_SLUG_BYTES = 120


@dataclass(frozen=True)
class Cell:
    """One pruning run."""

    checkpoint: str
    """The checkpoint's name in tables."""
    method: str
    """A key of :data:`~sparsegpt_cli.sweep.methods.METHODS`."""
    pattern: str
    """Such as ``2:4``, or a fraction of zeros."""
    samples: int | None = None
    """Calibration images; None for magnitude, which needs none."""
    seed: int | None = None
    """Seed of the draw of calibration images; None for magnitude."""

    def __str__(self) -> str:
        drawn = "" if self.samples is None else f", {self.samples} images, seed {self.seed}"
        return f"{self.checkpoint}: {self.method} {self.pattern}{drawn}"

    @property
    def key(self) -> str:
        """A readable name for a file. Different cells have different keys."""
        drawn = () if self.samples is None else (f"{self.samples}", f"seed{self.seed}")
        return "_".join((slug(self.checkpoint), self.method, slug(self.pattern), *drawn))


@dataclass(frozen=True)
class Grid:
    """The axes of a sweep.

    Raises:
        InputError: An axis is empty, a method or pattern is unknown, or two checkpoints have the same name.

    Example:
        >>> grid = Grid([Path("net.safetensors")], ["magnitude", "balanced"], ["2:4"], samples=[256], seeds=[0, 1])
        >>> [str(cell) for cell in grid.cells()][:2]
        ['net: magnitude 2:4', 'net: balanced 2:4, 256 images, seed 0']
    """

    checkpoints: Sequence[Path]
    """Checkpoints of ``train`` or ``finetune``."""
    methods: Sequence[str]
    """Keys of :data:`~sparsegpt_cli.sweep.methods.METHODS`."""
    patterns: Sequence[str]
    """Such as ``2:4``, or a fraction of zeros."""
    samples: Sequence[int]
    """Numbers of calibration images."""
    seeds: Sequence[int]
    """Seeds of the draws of calibration images."""
    factories: Sequence[str] = ()
    """``package.module:factory`` names whose code checkpoints may run."""

    def __post_init__(self) -> None:
        axes = {"--weights": self.checkpoints, "--method": self.methods, "--pattern": self.patterns}
        axes |= {"--samples": self.samples, "--seeds": self.seeds}
        for option, values in axes.items():
            if not values:
                raise InputError(f"{option} is missing", f"Give {option} at least once.")
        for method in self.methods:
            if method not in METHODS:
                near = difflib.get_close_matches(method, METHODS, n=1)
                guess = f"Did you mean {near[0]}? " if near else ""
                raise InputError(f"unknown method '{method}'", f"{guess}Known: {', '.join(METHODS)}.")
        for pattern in self.patterns:
            parse_pattern(pattern)
        names = Counter(slug(checkpoint_name(path)) for path in dict.fromkeys(self.checkpoints))
        name, count = names.most_common(1)[0]
        if count > 1:
            raise InputError(f"{count} checkpoints are called {name}", "Rename one: tables show the names.")

    def cells(self) -> list[Cell]:
        """Return the cells, all of one seed before those of the next."""
        cells = (
            Cell(name, method, pattern) if method == "magnitude" else Cell(name, method, pattern, samples, seed)
            for seed in self.seeds
            for samples in self.samples
            for name in map(checkpoint_name, self.checkpoints)
            for pattern in (str(parse_pattern(text)) for text in self.patterns)
            for method in self.methods
        )
        return list(dict.fromkeys(cells))


def checkpoint_name(path: Path) -> str:
    """Return the checkpoint's name in tables: its file's stem in printable characters."""
    return "".join(sign if sign.isprintable() else "�" for sign in path.stem)


def slug(text: str) -> str:
    """Return a text as a part of a file name, of at most 120 bytes."""
    return re.sub(r"[^\w.-]+", "-", text).encode()[:_SLUG_BYTES].decode(errors="ignore")
