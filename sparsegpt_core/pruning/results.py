"""What became of a network and its layers when they were pruned."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from sparsegpt_core.network import Int8Weight
from sparsegpt_core.reasons import Reason

__all__ = ["LayerResult", "PruneResult"]


@dataclass(frozen=True)
class LayerResult:
    """What became of one layer.

    ``relative_error`` is ‖W x − Ŵ x̃‖² / ‖W x‖² over the calibration inputs, biases included where they were
    shifted, x in the dense and x̃ in the pruned network (x = x̃ without the dense target), ``magnitude_error`` the
    same for magnitude pruning on the same inputs, ``inherited_error`` what the dense weights would leave of it;
    ``positions`` counts the columns x̃ there were, ``positions_used`` those that were looked at. All are None where
    no input was looked at. ``sensitivity`` is what pruning adds to the error of held-out samples, where there were
    some; ``masks`` and ``alphas`` count the rows that took each, where there was a choice.
    """

    name: str
    kind: str
    shape: tuple[int, ...]
    status: str
    reason: Reason | None
    sparsity: float
    relative_error: float | None = None
    magnitude_error: float | None = None
    inherited_error: float | None = None
    sensitivity: float | None = None
    damping: float | None = None
    positions: int | None = None
    positions_used: int | None = None
    masks: dict[str, int] | None = None
    alphas: dict[float, int] | None = None
    seconds: float = 0.0

    def to_json(self) -> dict[str, Any]:
        """Return the fields under their own names."""
        return asdict(self)


@dataclass(frozen=True)
class PruneResult:
    """Every layer in running order, seconds by stage, and what was noticed.

    The stages are trace, forward, statistics and solve; ``spilled_bytes`` of activations went to disk. ``integers``
    has every pruned layer's weight on an INT8 grid, by name, where the settings ask for it.
    """

    layers: tuple[LayerResult, ...]
    seconds: dict[str, float]
    warnings: tuple[str, ...]
    spilled_bytes: int = 0
    integers: Mapping[str, Int8Weight] = field(default_factory=dict)

    @property
    def pruned(self) -> int:
        """How many layers were pruned."""
        return sum(layer.status == "pruned" for layer in self.layers)
