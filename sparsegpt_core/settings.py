"""How a network is pruned."""

from __future__ import annotations

from dataclasses import dataclass, field

from sparsegpt_core.errors import InputError
from sparsegpt_core.patterns import NM, Pattern

__all__ = ["METHODS", "PruneSettings"]

METHODS = ("sparsegpt", "magnitude")


@dataclass(frozen=True)
class PruneSettings:
    """How to prune a network.

    Raises:
        InputError: A value is out of range.
    """

    pattern: Pattern = field(default_factory=lambda: NM(2, 4))
    method: str = "sparsegpt"
    """``sparsegpt``, or ``magnitude``: the baseline that looks at no image."""
    damping: float = 0.01
    """λ added to the Hessian's diagonal, relative to its mean."""
    block_size: int = 128
    """Columns per block of SparseGPT's lazy updates."""
    include: tuple[str, ...] = ()
    """Globs of layers to prune although they are the first, the last or excluded."""
    exclude: tuple[str, ...] = ()
    """Globs of layers to leave dense."""

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise InputError(f"unknown method '{self.method}'", f"Use {' or '.join(METHODS)}.")
        if not self.damping >= 0:
            raise InputError(f"damping {self.damping:g} is negative", "0.01 suits nearly always.")
        if self.block_size < 1:
            raise InputError(f"block size {self.block_size} is not positive", "128 suits nearly always.")
