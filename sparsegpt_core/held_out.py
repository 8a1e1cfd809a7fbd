"""Statistics of the samples that a layer is fitted to and, apart, of those held out to judge the fit by."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from sparsegpt_core.layout import PrunableLayer
from sparsegpt_core.low_rank import Gram, LowRank
from sparsegpt_core.moments import Moments
from sparsegpt_core.row_statistics import RowStatistics
from sparsegpt_core.statistics import LayerStatistics

__all__ = ["SplitStatistics", "pooled", "split_batches"]


class SplitStatistics:
    """A layer's moments over the samples to fit to and, apart, over the last of them, held out.

    Args:
        layer: The dense layer.
        samples: How many samples there will be in the whole calibration set, over all devices.
        held_out: How many of them, the last, are held out; 0: none.
        as_rows: Whether to keep the one vector that each sample gives the layer, in place of sums.
        positions_per_column, options: As :class:`~sparsegpt_core.statistics.LayerStatistics` takes them.
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


def pooled(first: Moments, second: Moments) -> Moments:
    """Return the moments over the positions of both."""
    share = second.used / (first.used + second.used)

    def blend(one: Tensor | None, other: Tensor | None) -> Tensor | None:
        return None if one is None or other is None else torch.lerp(one, other, share)

    result = Moments(
        hessian=_pooled_hessian(first, second, share),
        cross=blend(first.cross, second.cross),
        energy=None if first.energy is None else (1 - share) * first.energy + share * (second.energy or 0.0),
        positions=first.positions + second.positions,
        used=first.used + second.used,
        mean=blend(first.mean, second.mean),
        output_mean=blend(first.output_mean, second.output_mean),
    )
    if first.mean is None or second.mean is None:
        return result
    apart, spread = second.mean - first.mean, share * (1 - share)
    if first.output_mean is None or second.output_mean is None or result.cross is None:
        return result
    outputs_apart = second.output_mean - first.output_mean
    result.cross.addr_(outputs_apart, apart, alpha=spread)
    return replace(result, energy=(result.energy or 0.0) + spread * float(outputs_apart.square().sum()))


def _pooled_hessian(first: Moments, second: Moments, share: float) -> Gram:
    one, other = first.hessian, second.hessian
    # The means' own spread: share (1 − share) times the product of their differences.
    apart = None if first.mean is None or second.mean is None else second.mean - first.mean
    spread = share * (1 - share)
    if isinstance(one, Tensor) and isinstance(other, Tensor):
        whole = torch.lerp(one, other, share)
        return whole if apart is None else whole.addr_(apart, apart, alpha=spread)
    if isinstance(one, LowRank) and isinstance(other, LowRank):
        own = [] if apart is None else [spread**0.5 * apart[None]]
        return LowRank(torch.cat([(1 - share) ** 0.5 * one.root, share**0.5 * other.root, *own]))
    raise TypeError("both parts of a layer's moments hold H in the same way")


def split_batches(batches: Sequence[Tensor], first: int, at: int) -> list[Tensor]:
    """Cut the batch that holds sample ``at`` in two there; ``first`` is the index of the first sample of all."""
    cut: list[Tensor] = []
    for batch in batches:
        inside = at - first
        cut += [batch[:inside], batch[inside:]] if 0 < inside < len(batch) else [batch]
        first += len(batch)
    return cut
