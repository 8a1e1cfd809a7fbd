"""The qualities: how each layer is pruned, and what is done before and after."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any

from sparsegpt_core.errors import InputError
from sparsegpt_core.settings import PruneSettings

__all__ = ["BATCH_NORMS", "QUALITIES", "Quality", "Workflow", "preset"]

BATCH_NORMS = ("keep", "auto", "new")


@dataclass(frozen=True)
class Workflow:
    """What is done before and after the layers are pruned.

    Raises:
        InputError: A value is out of range, or two exclude each other.
    """

    permute: bool = False
    """Whether channels are reordered first, so that N:M loses less."""
    permute_seconds: float = 120
    """When the search for channel orders stops."""
    batch_norm: str = "keep"
    """``keep``: the trained statistics; ``new``: statistics of the calibration images; ``auto``: those that bring the
    outputs on held-out images closer to the dense network's."""
    global_budget: bool = False
    """Whether layers share an unstructured pattern's zeros, instead of the same fraction in each."""
    max_disagreement: float | None = None
    """Leave the layers with the most error dense until at most this percentage of held-out images changes class."""
    max_drop: float | None = None
    """Leave the layers with the most error dense until top-1 on held-out images falls by at most so many percentage
    points, where they have labels."""
    sparsity_budget: float | None = None
    """Leave the layers with the most error dense while this fraction of all weights stays zero."""
    min_speedup: float | None = None
    """Leave the layers with the most error dense while the estimated speed-up of the network stays as large."""
    look_ahead: bool = False
    """Whether the kept weights are fitted again at the end, block by block, to the outputs of the dense network."""
    views: int = 0
    """Shifted and mirrored copies of each calibration image, for data sets that allow them."""

    def __post_init__(self) -> None:
        if self.batch_norm not in BATCH_NORMS:
            raise InputError(f"unknown batch norm '{self.batch_norm}'", f"Use {', '.join(BATCH_NORMS)}.")
        if not self.permute_seconds > 0:
            raise InputError(f"`permute_seconds` is {self.permute_seconds:g}, not above 0", "120 suits nearly always.")
        if self.max_disagreement is not None and not 0 <= self.max_disagreement <= 100:
            raise InputError(f"`max_disagreement` is {self.max_disagreement:g}, not 0 to 100 %", "For example 0.5.")
        if self.sparsity_budget is not None and not 0 < self.sparsity_budget < 1:
            raise InputError(f"`sparsity_budget` is {self.sparsity_budget:g}, not between 0 and 1", "For example 0.4.")
        if self.min_speedup is not None and not self.min_speedup > 1:
            raise InputError(f"`min_speedup` is {self.min_speedup:g}, not above 1", "For example 1.05.")
        if self.sparsity_budget is not None:
            for name in ("max_disagreement", "max_drop", "min_speedup"):
                if getattr(self, name) is not None:
                    raise InputError(f"`{name}` and `sparsity_budget` exclude each other", "Give one of them.")

    @property
    def selects(self) -> bool:
        """Whether layers are left dense to meet a target."""
        targets = (self.max_disagreement, self.max_drop, self.sparsity_budget, self.min_speedup)
        return any(target is not None for target in targets)


@dataclass(frozen=True)
class Quality:
    """All that ``--quality`` stands for."""

    settings: PruneSettings
    """How each layer is pruned."""
    workflow: Workflow
    """What is done before and after."""


QUALITIES = {
    "fast": Quality(PruneSettings(alpha=0.0, refit=False, mask="adaptive"), Workflow()),
    "balanced": Quality(PruneSettings(), Workflow()),
    "best": Quality(PruneSettings(admm_columns=8192), Workflow(permute=True, batch_norm="auto", views=7)),
}
"""The qualities by name. docs/quality.md says what each costs and gains."""


def preset(quality: str, **changes: Any) -> Quality:
    """Return a quality with some values changed.

    Args:
        quality: A key of :data:`QUALITIES`.
        changes: Fields of :class:`~sparsegpt_core.settings.PruneSettings` or :class:`Workflow`.

    Raises:
        InputError: There is no such quality, or a value is out of range.

    Example:
        >>> best = preset("best", mask="adaptive", views=3)
        >>> best.settings.mask, best.workflow.views, best.workflow.permute
        ('adaptive', 3, True)
    """
    if quality not in QUALITIES:
        raise InputError(f"unknown quality '{quality}'", f"Use {', '.join(QUALITIES)}.")
    chosen = QUALITIES[quality]
    around = {each.name: changes.pop(each.name) for each in fields(Workflow) if each.name in changes}
    return Quality(replace(chosen.settings, **changes), replace(chosen.workflow, **around))
