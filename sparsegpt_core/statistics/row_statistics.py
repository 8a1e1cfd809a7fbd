"""Statistics of a layer with far fewer positions than columns: the input vectors themselves."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor

from sparsegpt_core.errors import InputError
from sparsegpt_core.execution import each, spans
from sparsegpt_core.linalg import LowRankHessian
from sparsegpt_core.network import PrunableLayer, input_columns, output_rows
from sparsegpt_core.statistics.layer_statistics import plain_outputs
from sparsegpt_core.statistics.moments import Moments, nearly_constant, no_inputs, not_finite

__all__ = ["RowStatistics"]

_CROSS_ROWS_PER_TASK = 256  # of the cross moment


class RowStatistics:
    """Keep the input vectors that the weight of a layer multiplies: its inputs, or the columns of im2col.

    Args:
        layer: The dense layer.
        samples: The number of samples, over all devices.
        vectors_per_sample: The vectors of each sample, one for each output position.
        start: The index of the first of them in the whole calibration set.
        cross: Whether :meth:`add_all` gets the dense layer's outputs too.
        centred: Whether the moments are about the means.
        output_scale: Factors (K,) on the dense outputs; None: 1.
    """

    def __init__(
        self,
        layer: PrunableLayer,
        *,
        samples: int,
        vectors_per_sample: int = 1,
        start: int = 0,
        cross: bool = False,
        centred: bool = False,
        output_scale: Tensor | None = None,
    ) -> None:
        rows, columns, count = len(layer.weight), layer.weight[0].numel(), samples * vectors_per_sample
        self._layer, self._samples, self._vectors, self._start = layer, samples, vectors_per_sample, start
        self._centred, self._output_scale = centred, output_scale
        self._inputs = torch.zeros(count, columns, device=layer.weight.device)
        self._outputs = torch.zeros(count, rows, device=layer.weight.device) if cross else None

    @torch.no_grad()
    def add_all(self, batches: Iterable[tuple[Tensor, Tensor | None, int]]) -> None:
        """Add batches, as ``LayerStatistics.add_all`` takes them. Several threads may add at a time.

        Raises:
            InputError: ``cross`` is set and a batch has no dense output.
        """
        for x, y, first in batches:
            own = slice(*((sample - self._start) * self._vectors for sample in (first, first + len(x))))
            self._inputs[own] = input_columns(self._layer, x)
            if self._outputs is not None:
                if y is None:
                    raise InputError("the cross moment needs the dense layer's outputs")
                self._outputs[own] = plain_outputs(output_rows(self._layer, y), self._layer.bias, self._output_scale)

    def sums(self) -> list[Tensor]:
        """Return every tensor that devices add up. A row is zero on all devices but the one with its sample."""
        return [self._inputs, *([] if self._outputs is None else [self._outputs])]

    def moments(self, name: str = "layer") -> Moments:
        """Return the means and free the rows.

        Args:
            name: The layer, for messages.

        Raises:
            InputError: There are no samples.
            NumericsError: An input, or a dense output, is NaN or infinite.
        """
        x, y = self._inputs, self._outputs  # (n, d), (n, K)
        del self._inputs, self._outputs
        count = len(x)
        if not count:
            raise no_inputs(name)
        if not all(bool(torch.isfinite(kept).all()) for kept in (x, y) if kept is not None):
            raise not_finite(name)
        mean = self._take_off_mean(x)
        if mean is not None:
            x[:, nearly_constant(x.square().mean(dim=0), mean)] = 0
        hessian = LowRankHessian(x / math.sqrt(count))  # H = xᵀ x / n
        if y is None:
            return Moments(hessian, None, None, count, count, mean, samples=self._samples)
        output_mean = self._take_off_mean(y)
        # (n, rows)ᵀ @ (n, d) -> (rows, d)
        blocks = each(lambda rows: y[:, rows].T @ x / count, spans(y.shape[1], _CROSS_ROWS_PER_TASK), x.device)
        # A norm for each position first, as in LayerStatistics.
        norms = torch.linalg.vector_norm(y, dim=1).cpu().double()
        energy = float(norms.square().mean())
        return Moments(hessian, torch.cat(blocks), energy, count, count, mean, output_mean, self._samples)

    def _take_off_mean(self, rows: Tensor) -> Tensor | None:
        """Centre rows in place and return their mean; None where the moments are not central."""
        if not self._centred:
            return None
        (mean,) = each(lambda kept: kept.mean(dim=0), [rows], rows.device)
        rows -= mean
        return mean
