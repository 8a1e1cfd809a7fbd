"""Settings of pruning."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from sparsegpt_core.errors import InputError
from sparsegpt_core.patterns import NM, Pattern, Unstructured, parse_pattern

__all__ = ["MASKS", "METHODS", "PruneSettings"]

METHODS = ("sparsegpt", "magnitude")
MASKS = ("adaptive", "exact", "admm", "auto")

_MIN_DAMPING = 1e-4  # relative to mean(diag H); below it the float32 factor is noise, see docs/numerics.md
_INHERITED_NOISE = 5000  # weight of the squared inherited error in the damping; see docs/decisions/0011
_CANDIDATE_ALPHAS = (1.0, 0.5, 0.25, 0.0)  # tried for every row if `alpha` is None
_HELD_OUT_FRACTION = 8  # one sample in eight judges the choice of mask and alpha


@dataclass(frozen=True)
class PruneSettings:
    """How to prune a network.

    Raises:
        InputError: A value is out of range, or the text of a pattern is none.

    Example:
        >>> settings = PruneSettings(NM(2, 4), mask="auto", exclude=("head",))
        >>> settings.masks_for(columns=576), settings.masks_for(columns=4608)
        (('adaptive', 'admm'), ('adaptive',))
    """

    pattern: Pattern = field(default_factory=lambda: NM(2, 4))
    """N:M, or a fraction of zeros; also as text, such as ``"2:4"`` or ``"0.5"``."""
    method: str = "sparsegpt"
    """``sparsegpt``, or ``magnitude``: the baseline, which reads no image."""
    damping: float | None = None
    """λ added to the Hessian's diagonal, relative to its mean. None: it grows as positions per column fall and with
    the error that a layer inherits, and falls where the pattern keeps fewer weights than it prunes."""
    block_size: int = 128
    """Columns per block of SparseGPT's lazy updates."""
    mask: str = "admm"
    """``adaptive``: SparseGPT's own. ``exact``: the best of each group of M, by their joint cost. ``admm``: better and
    slower. ``auto``: for every row the better of ``adaptive`` and ``admm`` by held-out error."""
    admm_columns: int = 2304
    """Columns of the widest layers that ADMM solves. Its cost grows with their third power; wider layers use
    ``adaptive``."""
    alpha: float | None = 1.0
    """How far a layer is pulled towards the dense network's outputs, 0 to 1. 0 uses the pruned network's inputs alone.
    None: for every row the best value by held-out error."""
    refit: bool = True
    """Whether the kept weights are fitted again, exactly, after the mask is chosen."""
    bias: bool = True
    """Whether the mean of a layer's outputs is kept by a shift of its bias, or of the batch norm after it. Also in
    grouped convolutions, which stay dense."""
    variance: bool | None = None
    """Whether the variance of a layer's outputs is kept: weights that are pulled towards the dense outputs are scaled,
    since a least-squares fit to noisy inputs shrinks them. So are those of grouped convolutions, which stay dense.
    None: ``prune_model`` does so in networks that give one row of numbers for each sample, such as logits; see
    docs/decisions/0039."""
    positions_per_column: float = 80
    """Positions that a layer's statistics sample for each of its columns; 0: all."""
    include: tuple[str, ...] = ()
    """Globs of layers to prune even if they are the first, the last or excluded."""
    exclude: tuple[str, ...] = ()
    """Globs of layers to leave dense."""

    def __post_init__(self) -> None:
        if not isinstance(self.pattern, (NM, Unstructured)):
            object.__setattr__(self, "pattern", parse_pattern(str(self.pattern)))
        for name in ("include", "exclude"):
            if isinstance(globs := getattr(self, name), str):
                object.__setattr__(self, name, (globs,))
        if self.method not in METHODS:
            raise InputError(f"unknown method '{self.method}'", f"Use {' or '.join(METHODS)}.")
        if self.damping is not None and not self.damping >= _MIN_DAMPING:
            raise InputError(
                f"damping {self.damping:g} is below {_MIN_DAMPING:g}, which float32 cannot resolve",
                "0.01 suits layers with many calibration images.",
            )
        if self.block_size < 1:
            raise InputError(f"block size {self.block_size} is not positive", "128 suits nearly every network.")
        if self.mask not in MASKS:
            raise InputError(f"unknown mask '{self.mask}'", f"Use {', '.join(MASKS[:-1])} or {MASKS[-1]}.")
        if self.alpha is not None and not 0 <= self.alpha <= 1:
            raise InputError(f"alpha {self.alpha:g} is not between 0 and 1", "1 suits nearly every network.")
        if not 0 <= self.positions_per_column < float("inf"):
            raise InputError(f"positions per column {self.positions_per_column:g} is negative", "0 takes all.")

    def damping_for(self, positions: int, columns: int, samples: int = 1, inherited_error: float = 0.0) -> float:
        """Return λ relative to mean(diag H).

        The default is 0.01 · √(1 + 100 d / n + 5000 ε² d / m) · min(1, kept / pruned weights). It fits the best values
        by held-out error of layers with 170 positions per column down to less than one, and of networks that lose
        little and much to pruning; see docs/decisions/0011.

        Args:
            positions: n, the positions that the Hessian is a mean over.
            columns: d.
            samples: m, the samples that the positions are from. The positions of one sample share its noise.
            inherited_error: ε, the relative error of the dense weights on the pruned network's inputs, which is the
                noise that the weights are fitted to.
        """
        if self.damping is not None:
            return self.damping
        noise = _INHERITED_NOISE * min(1.0, inherited_error) ** 2 * columns / samples
        pruned = self.pattern.sparsity
        kept_per_pruned = min(1.0, (1 - pruned) / pruned) if pruned else 1.0
        return 0.01 * math.sqrt(1 + 100 * columns / positions + noise) * kept_per_pruned

    @property
    def needs_dense_outputs(self) -> bool:
        """Whether layers are pulled towards the dense network's outputs."""
        return self.alpha is None or self.alpha > 0

    @property
    def keeps_variance(self) -> bool:
        """Whether the variance of the layers' outputs is kept, once ``variance`` is no longer None."""
        return self.method == "sparsegpt" and self.needs_dense_outputs and bool(self.variance)

    @property
    def matches_grouped_layers(self) -> bool:
        """Whether grouped convolutions, which stay dense, keep the mean and variance of their outputs too."""
        return self.method == "sparsegpt" and self.needs_dense_outputs and (self.bias or bool(self.variance))

    def masks_for(self, columns: int) -> tuple[str, ...]:
        """Return the masks to try for a layer with ``columns`` columns.

        A layer with few positions, whose H is stored by its root, counts with
        :attr:`~sparsegpt_core.linalg.Hessian.equivalent_columns`.
        """
        if columns > self.admm_columns and self.mask in ("admm", "auto"):
            return ("adaptive",)
        return ("adaptive", "admm") if self.mask == "auto" else (self.mask,)

    @property
    def alphas(self) -> tuple[float, ...]:
        """The values of α to try."""
        return _CANDIDATE_ALPHAS if self.alpha is None else (self.alpha,)

    def held_out_count(self, samples: int, *, samples_per_image: int = 1) -> int:
        """Return how many of ``samples`` are held out to choose masks and α by; 0 if nothing is left to choose.

        Args:
            samples: Samples in the whole calibration set.
            samples_per_image: Consecutive samples that show one image. They are held out together.

        Raises:
            InputError: There are too few samples to hold any out.
        """
        if self.mask != "auto" and self.alpha is not None:
            return 0
        images = samples // samples_per_image
        if images < 2:
            raise InputError("a choice by held-out error needs two calibration images or more", "Raise `samples`.")
        return max(1, images // _HELD_OUT_FRACTION) * samples_per_image
