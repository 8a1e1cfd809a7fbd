"""What is done around the sweep: before it, after it, and to meet a target."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sparsegpt_core.errors import InputError

__all__ = ["BATCH_NORMS", "WORKFLOWS", "Workflow"]

BATCH_NORMS = ("keep", "auto", "new")
WORKFLOWS: dict[str, dict[str, Any]] = {"best": {"permute": True, "batch_norm": "auto", "views": 7}}
"""What the presets change of :class:`Workflow`; those of the sweep itself are in sparsegpt_core.settings."""


@dataclass(frozen=True)
class Workflow:
    """What is done around the sweep.

    ``permute`` orders channels first, within ``permute_seconds``; ``batch_norm`` keeps the running statistics,
    estimates new ones, or does (``auto``) what is closer to the dense network on held-out images. At most one of
    ``max_disagreement`` (percent of held-out images) and ``sparsity_budget`` (share of zeros) leaves the most
    sensitive layers dense. ``global_budget`` shares an unstructured pattern's zeros among the layers. ``views`` are
    shifted and mirrored copies of each calibration image, of data that allow it.

    Raises:
        InputError: A value is out of range, or two exclude each other.
    """

    permute: bool = False
    permute_seconds: float = 120
    batch_norm: str = "keep"
    global_budget: bool = False
    max_disagreement: float | None = None
    sparsity_budget: float | None = None
    views: int = 0

    def __post_init__(self) -> None:
        if self.batch_norm not in BATCH_NORMS:
            raise InputError(f"unknown batch norm '{self.batch_norm}'", f"Use {', '.join(BATCH_NORMS)}.")
        if not self.permute_seconds > 0:
            raise InputError(f"`permute_seconds` is {self.permute_seconds:g}, not above 0", "120 suits nearly always.")
        if self.max_disagreement is not None and not 0 <= self.max_disagreement <= 100:
            raise InputError(f"a disagreement of {self.max_disagreement:g} % is impossible", "For example 0.5.")
        if self.sparsity_budget is not None and not 0 < self.sparsity_budget < 1:
            raise InputError(f"a sparsity of {self.sparsity_budget:g} is impossible", "For example 0.4.")
        if self.max_disagreement is not None and self.sparsity_budget is not None:
            raise InputError("--max-disagreement and --sparsity-budget exclude each other", "Give one of them.")

    @property
    def selects(self) -> bool:
        """Whether layers are left dense to meet a target."""
        return self.max_disagreement is not None or self.sparsity_budget is not None
