"""The lower triangle of a symmetric sum, stored by rows of blocks."""

from __future__ import annotations

import threading

import torch
from torch import Tensor

from sparsegpt_core.execution import sum_precision

__all__ = ["LowerTriangle"]


class LowerTriangle:
    """The lower triangle of a symmetric (d, d) sum, as block rows (height, columns up to the diagonal block).

    Products are float32; the sums are float64 (float32 on MPS, which has no float64). Several threads may add at a
    time.

    Args:
        columns: d.
        unit: The width of the blocks for :meth:`add_block`; 1 if it is not used.
        device: Where to store the sums.
    """

    def __init__(self, columns: int, unit: int, device: torch.device) -> None:
        # Eight block rows waste little above the diagonal. Heights below 128 or above 512 make no product faster.
        width = min(512, max(128, columns // 8))
        self._width = max(1, width // unit) * unit
        precision = sum_precision(device)
        self.rows = [
            torch.zeros(stop - start, stop, dtype=precision, device=device) for start, stop in self._spans(columns)
        ]
        self._columns = columns
        self._lock = threading.Lock()

    def add_products(self, x: Tensor) -> None:
        """Add the outer products of the rows of ``x`` (positions, d)."""
        for row, (start, stop) in zip(self.rows, self._spans(self._columns)):
            product = x[:, start:stop].T @ x[:, :stop]  # (positions, height)ᵀ @ (positions, stop)
            with self._lock:
                row += product

    def add_block(self, row: int, column: int, block: Tensor) -> None:
        """Add ``block`` (unit, unit) at (row · unit, column · unit), on or below the diagonal."""
        unit = block.shape[0]
        index, start = divmod(row * unit, self._width)
        with self._lock:
            self.rows[index][start : start + unit, column * unit : (column + 1) * unit] += block

    def mean(self, count: float, centre: Tensor | None = None) -> Tensor:
        """Return the whole matrix divided by ``count`` (d, d), float32 and exactly symmetric, and free the sums.

        Args:
            count: What to divide by.
            centre: c (d,), in the precision of the sums; c cᵀ is subtracted from the mean.
        """
        device = self.rows[0].device
        whole = torch.empty(self._columns, self._columns, device=device)
        for start, stop in self._spans(self._columns):
            row = self.rows.pop(0).div_(count)
            if centre is not None:
                row.addr_(centre[start:stop], centre[:stop], alpha=-1)
            whole[start:stop, :start] = row[:, :start]
            whole[:start, start:stop] = whole[start:stop, :start].T  # a float32 copy is several times faster
            diagonal = row[:, start:].tril()
            whole[start:stop, start:stop] = diagonal + diagonal.tril(-1).T
        return whole

    def _spans(self, columns: int) -> list[tuple[int, int]]:
        return [(start, min(columns, start + self._width)) for start in range(0, columns, self._width)]
