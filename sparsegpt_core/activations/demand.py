"""The request of a solver to a source of layer inputs, and what takes them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from sparsegpt_core.network import Layer

__all__ = ["LayerDemand", "Statistics"]


@dataclass(frozen=True)
class LayerDemand:
    """The request of a solver to a source of layer inputs."""

    layers: Sequence[Layer]
    """Layers whose inputs are gathered, in running order."""
    samples: int
    """Samples in the whole calibration set, over all processes."""
    first_sample: int = 0
    """Index of this process's first sample in the whole calibration set."""
    held_out_samples: int = 0
    """Samples, the last of the whole calibration set, that get moments of their own."""
    same_shapes: bool = True
    """Whether all samples of this process have the same shape."""
    wants_dense: bool = False
    """Whether the dense network's outputs are delivered too."""
    widest_admm_columns: int = 0
    """Columns of the widest layer that ADMM will solve, which takes more memory. 0: it solves no layer."""

    def kept_vectors(self, layer: Layer) -> int:
        """Return how many input vectors of each sample are kept in place of the layer's Hessian; 0: it is summed."""
        return layer.vectors_per_sample if self.same_shapes and layer.keeps_positions(self.samples) else 0


class Statistics(Protocol):
    """Sums a layer's inputs."""

    def add_all(self, batches: Iterable[tuple[Tensor, Tensor | None, int]]) -> None:
        """Add batches of the layer's input, its dense output if asked for, and the index of the first sample."""
