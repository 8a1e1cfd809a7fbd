"""Leave layers dense until a target is met."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from calibration.evaluation import Distance

__all__ = ["SelectionStep"]


@dataclass(frozen=True)
class SelectionStep:
    """A network with some layers left dense, and how far it is from the dense one on held-out images."""

    dense: int
    sparsity: float
    distance: Distance

    def to_json(self) -> dict[str, Any]:
        """Return the number of layers left dense, the sparsity, and the distances."""
        return {"dense_layers": self.dense, "sparsity": self.sparsity, **self.distance.to_json()}
