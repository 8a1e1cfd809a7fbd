"""The sums over one layer's positions: the Hessian of its inputs, and the cross moment with its dense outputs."""

from __future__ import annotations

import itertools
import math
import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from sparsegpt_core.errors import InputError
from sparsegpt_core.linalg import DenseHessian
from sparsegpt_core.network import PrunableLayer, input_columns, output_rows, pad_input, sampled_columns
from sparsegpt_core.statistics.correlations import Maps, axes_of, cross_blocks, hessian_blocks, map_of, phase_maps
from sparsegpt_core.statistics.displacements import Axis, find_displacements
from sparsegpt_core.statistics.lower_triangle import LowerTriangle
from sparsegpt_core.statistics.moments import Moments, nearly_constant, no_inputs, not_finite

__all__ = ["LayerStatistics"]

# Inputs wait until a piece of them is full. The piece is then multiplied in float32 and added to the float64 sums.
# Smaller pieces would spend their time on the additions, larger ones would lose precision and memory.
_PIECE_POSITIONS = 16384
_PIECE_BYTES = 64 << 20
_GPU_PIECE_FACTOR = 8  # a GPU needs more work at a time to be busy


class LayerStatistics:
    """Sum a layer's moments over batches: float32 products of pieces, float64 across pieces.

    Args:
        layer: The dense layer: a linear layer or an ungrouped convolution.
        samples: The number of samples in the whole calibration set, over all devices.
        cross: Whether :meth:`add` gets the dense layer's outputs too.
        centred: Whether the moments are about the means.
        positions_per_column: Sum over about this many times d positions, drawn evenly from the samples, where that is
            less work than all positions; 0: over all.
        output_scale: Factors (K,) on the dense outputs; None: 1.

    Example:
        >>> import torch
        >>> layer = torch.nn.Conv2d(2, 3, kernel_size=1)
        >>> statistics = LayerStatistics(layer)
        >>> statistics.add(torch.ones(4, 2, 5, 5))
        >>> moments = statistics.moments()
        >>> moments.positions, moments.hessian.to_dense().tolist()
        (100, [[1.0, 1.0], [1.0, 1.0]])
    """

    def __init__(
        self,
        layer: PrunableLayer,
        *,
        samples: int = 0,
        cross: bool = False,
        centred: bool = False,
        positions_per_column: float = 0,
        output_scale: Tensor | None = None,
    ) -> None:
        rows, channels = layer.weight.shape[:2]
        columns = layer.weight[0].numel()
        device = layer.weight.device
        self._layer, self._samples, self._output_scale = layer, samples, output_scale
        self._taps = columns // channels
        wanted = positions_per_column * columns / max(1, samples)
        self._drawn = max(1, int(wanted)) if wanted else 0  # positions to draw from each sample; 0: take all
        self._hessian = LowerTriangle(columns, channels if self._taps > 1 else 1, device)
        precision = self._hessian.rows[0].dtype
        self._cross = torch.zeros(rows, columns, dtype=precision, device=device) if cross else None
        self._centred = centred
        self._mean = torch.zeros(columns, dtype=precision, device=device)
        self._output_mean = torch.zeros(rows, dtype=precision, device=device)
        self._positions, self._used, self._energy = torch.zeros(3, dtype=precision, device=device).unbind()
        self._lock = threading.Lock()
        factor = 1 if device.type == "cpu" else _GPU_PIECE_FACTOR
        self._piece_positions = factor * _PIECE_POSITIONS
        # The addition of a piece takes time in proportion to the sums, so wide layers need larger pieces.
        self._piece_bytes = max(factor * _PIECE_BYTES, sum(row.nbytes for row in self._hessian.rows) // 8)

    def add(self, x: Tensor, y: Tensor | None = None, first: int = 0) -> None:
        """Add a batch.

        Args:
            x: The layer's input in the pruned network: (N, C, *spatial) or, for linear layers, (..., C).
            y: The dense layer's output in the dense network, bias included; required with ``cross``.
            first: The index of the first sample in the whole calibration set. It alone decides which positions of a
                sample are drawn.

        Raises:
            InputError: ``cross`` is set and there is no ``y``.
        """
        self.add_all([(x, y, first)])

    @torch.no_grad()
    def add_all(self, batches: Iterable[tuple[Tensor, Tensor | None, int]]) -> None:
        """Add batches (x, y, first), each as :meth:`add` takes one. They are multiplied together.

        Several threads may add at a time. Their order does not change the sums, which store float32 products exactly.

        Raises:
            InputError: ``cross`` is set and a batch has no ``y``.
        """
        piece = _Piece()
        for x, y, first in batches:
            if self._cross is not None and y is None:
                raise InputError("the cross moment needs the dense layer's outputs")
            if x.numel():
                self._prepare(piece, x, None if self._cross is None else y, first)
        self._flush(piece)

    def _prepare(self, piece: _Piece, x: Tensor, y: Tensor | None, first: int) -> None:
        if x.ndim == 1:
            x, y = x[None], None if y is None else y[None]
        layer = self._layer
        axes = () if isinstance(layer, nn.Linear) else axes_of(layer, x.shape[2:])
        count = math.prod(axis.out for axis in axes) if axes else x.shape[1:-1].numel()
        drawn = self._draws(axes, count)
        with self._lock:
            self._positions += len(x) * count
            self._used += len(x) * (drawn or count)
        if drawn:
            self._wait(piece, *self._draw(x, y, first, count, drawn))
        elif isinstance(layer, nn.Linear) or self._taps == 1:
            self._wait(piece, input_columns(layer, x), None if y is None else output_rows(layer, y))
        else:
            self._wait(piece, x if layer.padding_mode == "zeros" else pad_input(layer, x), y, axes)

    def sums(self) -> list[Tensor]:
        """Return every additive sum. The caller may add the sums of other devices to them in place.

        Their number and shapes depend on the layer alone, so devices can add theirs up one by one.
        """
        cross = [] if self._cross is None else [self._cross]
        return [*self._hessian.rows, *cross, self._mean, self._output_mean, self._positions, self._used, self._energy]

    def moments(self, name: str = "layer") -> Moments:
        """Return the means and free the sums.

        Args:
            name: The layer, for messages.

        Raises:
            InputError: Nothing was added.
            NumericsError: An input, or a dense output, is NaN or infinite.
        """
        positions, used = int(self._positions), int(self._used)
        self._used.zero_()
        if not used:
            raise no_inputs(name)
        mean, output_mean = self._mean.div_(used), self._output_mean.div_(used)  # (d,), (K,)
        hessian = self._hessian.mean(used, mean if self._centred else None)  # (d, d)
        cross, energy = self._cross, float(self._energy) / used
        self._cross = None
        if cross is not None:
            cross.div_(used)
            if self._centred:
                cross.addr_(output_mean, mean, alpha=-1)  # (K, d) − (K,) ⊗ (d,)
                energy = max(0.0, energy - float(output_mean.square().sum()))
            cross = cross.float()
        if self._centred:
            _drop_constant(hessian, cross, mean)
        # Every NaN or infinity reaches the sums of squares.
        if not (bool(torch.isfinite(hessian.diagonal()).all()) and math.isfinite(energy)):
            raise not_finite(name)
        return Moments(
            DenseHessian(hessian),
            cross,
            None if cross is None else energy,
            positions,
            used,
            mean.float() if self._centred else None,
            output_mean.float() if self._centred and cross is not None else None,
            self._samples,
        )

    def _draws(self, axes: tuple[Axis, ...], count: int) -> int:
        """Return how many of a sample's ``count`` positions to draw; 0: take all, where that is not more work."""
        if not 0 < self._drawn < count:
            return 0
        (rows, channels), taps = self._layer.weight.shape[:2], self._taps
        # Multiplications for one sample: of the positions that are drawn, in the lower triangle, and of all of them.
        cross = 0 if self._cross is None else taps * channels * rows
        shared = sum(d.positions for d in find_displacements(axes)) if taps > 1 else count
        drawn = self._drawn * (taps * (taps + 1) // 2 * channels**2 + cross)
        return self._drawn if drawn < shared * channels**2 + count * cross else 0

    def _draw(self, x: Tensor, y: Tensor | None, first: int, count: int, drawn: int) -> tuple[Tensor, Tensor | None]:
        """Return the rows (N · drawn, d) of the drawn positions, and those (N · drawn, K) of the dense outputs."""
        draws = [
            torch.randperm(count, generator=torch.Generator().manual_seed(first + index))[:drawn].sort().values
            for index in range(len(x))
        ]
        positions = torch.stack(draws)  # (N, drawn)
        if y is not None:
            rows = (torch.arange(len(x))[:, None] * count + positions).flatten().to(y.device)
            y = output_rows(self._layer, y).index_select(0, rows)
        return sampled_columns(self._layer, x, positions), y

    def _wait(self, piece: _Piece, x: Tensor, y: Tensor | None, axes: tuple[Axis, ...] = ()) -> None:
        """Add inputs to the piece, as rows (positions, d) or, with ``axes``, as maps; multiply whenever it is full."""
        if axes != piece.axes:
            self._flush(piece)
            piece.axes = axes
        count = math.prod(axis.out for axis in axes)
        size = (x.nbytes + (0 if y is None else y.nbytes)) / len(x)
        # The fraction of a full piece that one sample is, by positions or by bytes.
        share = max(count / self._piece_positions, size / self._piece_bytes)
        step = max(1, int(1 / share))
        outputs = itertools.repeat(None) if y is None else torch.split(y, step)
        for part, output in zip(torch.split(x, step), outputs):
            piece.inputs.append(part)
            if output is not None:
                piece.outputs.append(output)
            piece.load += share * len(part)
            if piece.load >= 1:
                self._flush(piece)

    def _flush(self, piece: _Piece) -> None:
        """Multiply the inputs of the piece, add the products to the sums, and empty it."""
        inputs, outputs = piece.inputs, piece.outputs
        piece.inputs, piece.outputs, piece.load = [], [], 0.0
        if not inputs:
            return
        if piece.axes:
            self._add_maps(inputs, self._without_bias(map_of(outputs)) if outputs else None, piece.axes)
        else:
            self._add_rows(_joined(inputs).float(), self._without_bias(_joined(outputs)) if outputs else None)

    def _add_rows(self, x: Tensor, y: Tensor | None) -> None:
        """Add inputs (positions, d) and dense outputs (positions, K)."""
        self._hessian.add_products(x)  # (positions, d)ᵀ @ (positions, d) -> (d, d)
        if self._centred:
            self._add(self._mean, x.sum(0))  # (d,)
        if self._cross is not None and y is not None:
            self._add(self._cross, y.T @ x)  # (positions, K)ᵀ @ (positions, d) -> (K, d)

    def _add_maps(self, inputs: list[Tensor], y: Tensor | None, axes: tuple[Axis, ...]) -> None:
        """Add inputs, each (N, C, *spatial), and dense outputs (*out, N, K), without unfolding them."""
        maps = {phase: x.float() for phase, x in phase_maps(inputs, axes).items()}
        # Block (C, C) of two taps (row, column) on or below the diagonal.
        for row, column, block in hessian_blocks(maps, axes):
            self._hessian.add_block(row, column, block)
        if self._centred:
            self._add_tap_sums(maps, axes)
        if self._cross is not None and y is not None:
            taps = self._cross.view(len(self._cross), self._taps, -1)  # (K, taps, C)
            for tap, block in cross_blocks(maps, y, axes):
                self._add(taps[:, tap], block)

    def _add_tap_sums(self, maps: Maps, axes: tuple[Axis, ...]) -> None:
        """Add the sum of the inputs that each tap sees: their cross moment with an output of ones."""
        mean = self._mean.view(self._taps, -1)  # (taps, C)
        sums = {phase: x.sum(-2, keepdim=True) for phase, x in maps.items()}
        for tap, block in cross_blocks(sums, mean.new_ones(*(axis.out for axis in axes), 1, 1).float(), axes):
            self._add(mean[tap], block[0])

    def _add(self, total: Tensor, product: Tensor) -> None:
        with self._lock:
            total += product

    def _without_bias(self, y: Tensor) -> Tensor:
        """Return dense outputs (..., K) without their bias and scaled, and add their sum and their energy."""
        y = plain_outputs(y, self._layer.bias, self._output_scale)
        if self._centred:
            self._add(self._output_mean, y.flatten(0, -2).sum(0))
        # A norm for each position first: ten times as fast as a float64 sum of all squares, and as exact.
        energy = torch.linalg.vector_norm(y, dim=-1).to(self._energy.dtype).square().sum()
        self._add(self._energy, energy.float())  # float32 like all products, so that their order does not matter
        return y


@dataclass
class _Piece:
    """Inputs and outputs that wait to be multiplied together."""

    inputs: list[Tensor] = field(default_factory=list)
    """Each (positions, d), or (N, C, *spatial) with ``axes``."""
    outputs: list[Tensor] = field(default_factory=list)
    """Each (positions, K), or (N, K, *out) with ``axes``."""
    axes: tuple[Axis, ...] = ()
    """The geometry of a convolution for these inputs; empty for rows."""
    load: float = 0.0
    """The fraction of a full piece."""


def plain_outputs(y: Tensor, bias: Tensor | None, scale: Tensor | None) -> Tensor:
    """Return outputs (..., K) without their bias, times a scale (K,)."""
    y = y.float() if bias is None else y.float() - bias.float()
    return y if scale is None else y * scale


def _joined(parts: Sequence[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(list(parts))


def _drop_constant(hessian: Tensor, cross: Tensor | None, mean: Tensor) -> None:
    """Zero the central moments of inputs that are constant up to rounding."""
    constant = nearly_constant(hessian.diagonal(), mean)
    hessian[constant] = 0
    hessian[:, constant] = 0
    if cross is not None:
        cross[:, constant] = 0
