"""A symmetric sum of which only the lower triangle is kept, by rows of blocks."""

from __future__ import annotations

import threading

import torch
from torch import Tensor

__all__ = ["LowerTriangle"]


class LowerTriangle:
    """The lower triangle of a symmetric (d, d) sum, as block rows (width, columns up to the diagonal's).

    Products come in float32 and are added up in float64 (float32 on MPS, which has no float64). Threads may add at
    the same time.

    Args:
        columns: d.
        unit: Blocks that :meth:`add_block` gets are this wide; 1 if it is not used.
        device: Where the sums live.
    """

    def __init__(self, columns: int, unit: int, device: torch.device) -> None:
        # About eight block rows waste little above the diagonal; under 128 and over 512 products get no faster.
        width = min(512, max(128, columns // 8))
        self._width = max(1, width // unit) * unit
        precision = torch.float32 if device.type == "mps" else torch.float64
        self.rows = [
            torch.zeros(stop - start, stop, dtype=precision, device=device) for start, stop in self._spans(columns)
        ]
        self._columns = columns
        self._lock = threading.Lock()

    def add_products(self, x: Tensor) -> None:
        """Add the outer products of the rows of ``x`` (positions, d)."""
        for row, (start, stop) in zip(self.rows, self._spans(self._columns)):
            product = x[:, start:stop].T @ x[:, :stop]
            with self._lock:
                row += product

    def add_block(self, row: int, column: int, block: Tensor) -> None:
        """Add ``block`` (unit, unit) at (row · unit, column · unit), on or below the diagonal."""
        unit = block.shape[0]
        index, start = divmod(row * unit, self._width)
        with self._lock:
            self.rows[index][start : start + unit, column * unit : (column + 1) * unit] += block

    def mean(self, count: float, centre: Tensor | None = None) -> Tensor:
        """Return the whole matrix divided by ``count`` (d, d), float32, exactly symmetric; gives up the sums.

        With ``centre`` c (d,), in the precision of the sums, c cᵀ is taken off.
        """
        device = self.rows[0].device
        whole = torch.empty(self._columns, self._columns, device=device)
        for start, stop in self._spans(self._columns):
            row = self.rows.pop(0).div_(count)
            if centre is not None:
                row.addr_(centre[start:stop], centre[:stop], alpha=-1)
            whole[start:stop, :start] = row[:, :start]
            whole[:start, start:stop] = whole[start:stop, :start].T  # from float32: several times faster
            diagonal = row[:, start:].tril()
            whole[start:stop, start:stop] = diagonal + diagonal.tril(-1).T
        return whole

    def _spans(self, columns: int) -> list[tuple[int, int]]:
        return [(start, min(columns, start + self._width)) for start in range(0, columns, self._width)]
