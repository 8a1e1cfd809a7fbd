"""Which cells a sweep has. Loads no torch."""

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
    """One pruning run; ``samples`` and ``seed`` are None for magnitude, which looks at no image."""

    checkpoint: str
    method: str
    pattern: str
    samples: int | None = None
    seed: int | None = None

    def __str__(self) -> str:
        drawn = "" if self.samples is None else f", {self.samples} images, seed {self.seed}"
        return f"{self.checkpoint}: {self.method} {self.pattern}{drawn}"

    @property
    def key(self) -> str:
        """A readable name for a file; other cells have other keys."""
        drawn = () if self.samples is None else (f"{self.samples}", f"seed{self.seed}")
        return "_".join((slug(self.checkpoint), self.method, slug(self.pattern), *drawn))


@dataclass(frozen=True)
class Grid:
    """The axes of a sweep; ``factories`` are the models that checkpoints may name although they are code.

    Raises:
        InputError: An axis is empty, a method or pattern is unknown, or two checkpoints have one name.
    """

    checkpoints: Sequence[Path]
    methods: Sequence[str]
    patterns: Sequence[str]
    samples: Sequence[int]
    seeds: Sequence[int]
    factories: Sequence[str] = ()

    def __post_init__(self) -> None:
        axes = {"--weights": self.checkpoints, "--methods": self.methods, "--patterns": self.patterns}
        axes |= {"--samples": self.samples, "--seeds": self.seeds}
        for option, values in axes.items():
            if not values:
                raise InputError(f"{option} names nothing to sweep over", f"Give {option} at least once.")
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
            raise InputError(f"{count} checkpoints are called {name}", "Rename one: its name is what tables show.")

    def cells(self) -> list[Cell]:
        """List the cells: one seed's whole grid before the next one's."""
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
    """Return what a checkpoint is called: its file's stem, fit to be printed."""
    return "".join(sign if sign.isprintable() else "�" for sign in path.stem)


def slug(text: str) -> str:
    """Return a text as a part of a file's name, of at most 120 bytes."""
    return re.sub(r"[^\w.-]+", "-", text).encode()[:_SLUG_BYTES].decode(errors="ignore")
