"""Statistics of the samples that a layer is fitted to and, apart, of those held out to judge the fit by."""

from __future__ import annotations

from collections.abc import Iterable

from torch import Tensor

from sparsegpt_core.network import PrunableLayer
from sparsegpt_core.statistics.layer_statistics import LayerStatistics
from sparsegpt_core.statistics.moments import Moments
from sparsegpt_core.statistics.row_statistics import RowStatistics

__all__ = ["SplitStatistics"]


class SplitStatistics:
    """A layer's moments over the samples to fit to and, apart, over the last of them, held out.

    Args:
        layer: The dense layer.
        samples: How many samples there will be in the whole calibration set, over all devices.
        held_out: How many of them, the last, are held out; 0: none.
        as_rows: Whether to keep the one vector that each sample gives the layer, in place of sums.
        positions_per_column, options: As :class:`~sparsegpt_core.statistics.LayerStatistics` takes
            them.
    """

    def __init__(
        self,
        layer: PrunableLayer,
        samples: int,
        held_out: int,
        *,
        as_rows: bool = False,
        positions_per_column: float = 0,
        **options: bool,
    ) -> None:
        self._fitted = samples - held_out
        starts = {0: self._fitted, self._fitted: held_out} if held_out else {0: samples}

        def part(start: int, count: int) -> LayerStatistics | RowStatistics:
            if as_rows:
                return RowStatistics(layer, samples=count, start=start, **options)
            return LayerStatistics(layer, samples=self._fitted, positions_per_column=positions_per_column, **options)

        self._parts = [part(start, count) for start, count in starts.items()]

    def add_all(self, batches: Iterable[tuple[Tensor, Tensor | None, int]]) -> None:
        """Add batches (x, y, index of the first sample), of which none lies on both sides."""
        own: tuple[list[tuple[Tensor, Tensor | None, int]], ...] = ([], [])
        for batch in batches:
            own[batch[2] >= self._fitted].append(batch)
        for part, share in zip(self._parts, own):
            part.add_all(share)

    def sums(self) -> list[Tensor]:
        """Return every additive sum, in the same order on all devices."""
        return [total for part in self._parts for total in part.sums()]

    def moments(self, name: str = "layer") -> tuple[Moments, Moments | None]:
        """Return the moments to fit to and those held out, if any; gives up the sums."""
        fitted, *held = (part.moments(name) for part in self._parts)
        return fitted, held[0] if held else None
