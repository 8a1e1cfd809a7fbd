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
    alpha: float = 1.0
    """How far a layer is pulled towards the dense network's outputs: 0 to 1; 0 looks at the pruned network alone."""
    refit: bool = True
    """Whether the kept weights are fitted once more, exactly, to the mask that SparseGPT chose."""
    positions_per_column: float = 80
    """Positions a layer's statistics sample for each of its columns; 0 takes all."""
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
        if not 0 <= self.alpha <= 1:
            raise InputError(f"alpha {self.alpha:g} lies outside 0 to 1", "1 suits nearly always.")
        if not 0 <= self.positions_per_column < float("inf"):
            raise InputError(f"positions per column {self.positions_per_column:g} is negative", "0 takes all.")
