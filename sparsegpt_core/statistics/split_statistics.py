"""Statistics of the fitted samples of a layer and, separately, of the held-out samples that judge the fit."""

from __future__ import annotations

from collections.abc import Iterable

from torch import Tensor

from sparsegpt_core.network import PrunableLayer
from sparsegpt_core.statistics.layer_statistics import LayerStatistics
from sparsegpt_core.statistics.moments import Moments
from sparsegpt_core.statistics.row_statistics import RowStatistics

__all__ = ["SplitStatistics"]


class SplitStatistics:
    """A layer's moments over the fitted samples and, separately, over the held-out ones, which are the last.

    Args:
        layer: The dense layer.
        samples: The number of samples in the whole calibration set, over all devices.
        held_out_samples: How many of them are held out; 0: none.
        kept_vectors: Input vectors of each sample to keep instead of sums; 0: sums.
        cross: Whether :meth:`add_all` gets the dense layer's outputs too.
        centred: Whether the moments are about the means.
        positions_per_column: Sum over about this many times d positions of the fitted samples; 0: over all.
        output_scale: Factors (K,) on the dense outputs; None: 1.

    Example:
        >>> import torch
        >>> x = torch.ones(10, 4)
        >>> statistics = SplitStatistics(torch.nn.Linear(4, 2), samples=10, held_out_samples=2)
        >>> statistics.add_all([(x[:8], None, 0), (x[8:], None, 8)])
        >>> fitted, held_out = statistics.moments()
        >>> fitted.used, held_out.used
        (8, 2)
    """

    def __init__(
        self,
        layer: PrunableLayer,
        samples: int,
        held_out_samples: int,
        *,
        kept_vectors: int = 0,
        cross: bool = False,
        centred: bool = False,
        positions_per_column: float = 0,
        output_scale: Tensor | None = None,
    ) -> None:
        self._fitted_samples = fitted = samples - held_out_samples

        def part(start: int, count: int) -> LayerStatistics | RowStatistics:
            if kept_vectors:
                return RowStatistics(
                    layer,
                    samples=count,
                    vectors_per_sample=kept_vectors,
                    start=start,
                    cross=cross,
                    centred=centred,
                    output_scale=output_scale,
                )
            return LayerStatistics(
                layer,
                samples=fitted,
                cross=cross,
                centred=centred,
                positions_per_column=positions_per_column,
                output_scale=output_scale,
            )

        self._parts = [part(0, fitted), *([part(fitted, held_out_samples)] if held_out_samples else [])]

    def add_all(self, batches: Iterable[tuple[Tensor, Tensor | None, int]]) -> None:
        """Add batches (x, y, index of the first sample), each either fitted or held out as a whole."""
        fitted: list[tuple[Tensor, Tensor | None, int]] = []
        held_out: list[tuple[Tensor, Tensor | None, int]] = []
        for x, y, first in batches:
            (fitted if first < self._fitted_samples else held_out).append((x, y, first))
        for part, own in zip(self._parts, (fitted, held_out)):
            part.add_all(own)

    def sums(self) -> list[Tensor]:
        """Return every additive sum, in the same order on all devices."""
        return [total for part in self._parts for total in part.sums()]

    def moments(self, name: str = "layer") -> tuple[Moments, Moments | None]:
        """Return the fitted moments and the held-out ones, if any, and free the sums.

        Args:
            name: The layer, for messages.

        Raises:
            InputError: Nothing was added.
            NumericsError: An input, or a dense output, is NaN or infinite.
        """
        fitted, *held_out = (part.moments(name) for part in self._parts)
        return fitted, held_out[0] if held_out else None
