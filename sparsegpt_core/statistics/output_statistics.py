"""The sums over the outputs of a layer that stays dense, in the dense and in the pruned network."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from sparsegpt_core.execution import sum_precision
from sparsegpt_core.network import PrunableLayer, output_rows
from sparsegpt_core.statistics.moments import no_inputs, not_finite

__all__ = ["OutputMoments", "OutputStatistics"]


@dataclass(frozen=True)
class OutputMoments:
    """Means over the positions of a layer's outputs, without their bias, float64 (K,).

    y = W x is the output in the dense network, ŷ = W x̃ that in the pruned one.
    """

    mean: Tensor
    """(1/n) Σ y."""
    energy: Tensor
    """(1/n) Σ y²."""
    sparse_mean: Tensor
    """(1/n) Σ ŷ."""
    sparse_energy: Tensor
    """(1/n) Σ ŷ²."""
    overlap: Tensor
    """(1/n) Σ y ŷ."""
    positions: int
    """n, on all devices."""

    def centred(self) -> OutputMoments:
        """Return the moments of the deviations from the means, with the same means."""
        return OutputMoments(
            self.mean,
            (self.energy - self.mean.square()).clamp_min(0),
            self.sparse_mean,
            (self.sparse_energy - self.sparse_mean.square()).clamp_min(0),
            self.overlap - self.mean * self.sparse_mean,
            self.positions,
        )


class OutputStatistics:
    """Sum the outputs of a layer over batches: float32 within a batch, float64 across them.

    Args:
        layer: The dense layer, grouped or not.

    Example:
        >>> import torch
        >>> layer, x = torch.nn.Linear(1, 1, bias=False), torch.ones(4, 1)
        >>> _ = layer.weight.data.fill_(2)
        >>> statistics = OutputStatistics(layer)
        >>> statistics.add_all([(x, 3 * x, 0)])
        >>> moments = statistics.moments()
        >>> moments.mean.item(), moments.sparse_mean.item(), moments.overlap.item()
        (3.0, 2.0, 6.0)
    """

    def __init__(self, layer: PrunableLayer) -> None:
        rows, device = layer.weight.shape[0], layer.weight.device
        self._layer = layer
        self._sums = torch.zeros(5, rows, dtype=sum_precision(device), device=device)
        self._positions = self._sums.new_zeros(())
        self._lock = threading.Lock()

    @torch.no_grad()
    def add_all(self, batches: Iterable[tuple[Tensor, Tensor | None, int]]) -> None:
        """Add batches of the layer's input in the pruned network, and its output in the dense one.

        Several threads may add at a time. Their order does not change the sums.
        """
        for x, y, _ in batches:
            if y is None:
                raise ValueError("the layer's outputs in the dense network are missing")
            dense, sparse = (self._rows(values) for values in (y, self._layer(x)))
            sums = [dense.sum(0), (dense * dense).sum(0), sparse.sum(0), (sparse * sparse).sum(0)]
            sums.append((dense * sparse).sum(0))
            with self._lock:
                self._sums += torch.stack(sums)
                self._positions += len(dense)

    def sums(self) -> list[Tensor]:
        """Return every additive sum."""
        return [self._sums, self._positions]

    def moments(self, name: str = "layer") -> OutputMoments:
        """Return the means.

        Args:
            name: The layer, for messages.

        Raises:
            InputError: Nothing was added.
            NumericsError: An output is NaN or infinite.
        """
        positions = int(self._positions)
        if not positions:
            raise no_inputs(name)
        if not bool(torch.isfinite(self._sums).all()):
            raise not_finite(name)
        mean, energy, sparse_mean, sparse_energy, overlap = (self._sums / positions).unbind()
        return OutputMoments(mean, energy, sparse_mean, sparse_energy, overlap, positions)

    def _rows(self, y: Tensor) -> Tensor:
        rows = output_rows(self._layer, y).float()
        return rows if self._layer.bias is None else rows - self._layer.bias.float()
