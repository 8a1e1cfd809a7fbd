"""What calibration sums up about one layer: H of its inputs, and what its dense outputs have to do with them."""

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
from sparsegpt_core.statistics.moments import Moments, hardly_vary, no_inputs, not_finite

__all__ = ["LayerStatistics"]

# Inputs are kept until there are this many positions or bytes of them, then multiplied in float32 and added
# to the float64 sums: fewer would spend their time on the sums, more would lose precision and memory.
_POSITIONS = 16384
_BYTES = 64 * 2**20
# A GPU needs more work at once to be busy.
_GPU_FACTOR = 8


class LayerStatistics:
    """Sum a layer's moments over batches: float32 products of pieces, float64 across pieces.

    Args:
        layer: The dense layer: a linear layer or an ungrouped convolution.
        samples: How many samples there will be in the whole calibration set, over all devices.
        cross: Whether :meth:`add` gets the dense layer's outputs too.
        centred: Whether the moments are those about the means.
        positions_per_column: Sum over about this many times d positions, drawn evenly from the samples,
            where that is less work than all; 0: over all.
    """

    def __init__(
        self,
        layer: PrunableLayer,
        *,
        samples: int = 0,
        cross: bool = False,
        centred: bool = False,
        positions_per_column: float = 0,
    ) -> None:
        rows, channels = layer.weight.shape[:2]
        columns = layer.weight[0].numel()
        device = layer.weight.device
        self._layer = layer
        self._taps = columns // channels
        # Positions to draw from each sample; 0: take all.
        wanted = positions_per_column * columns / max(1, samples)
        self._drawn = max(1, int(wanted)) if wanted else 0
        self._hessian = LowerTriangle(columns, channels if self._taps > 1 else 1, device)
        precision = self._hessian.rows[0].dtype
        self._cross = torch.zeros(rows, columns, dtype=precision, device=device) if cross else None
        self._centred = centred
        self._mean = torch.zeros(columns, dtype=precision, device=device)
        self._output_mean = torch.zeros(rows, dtype=precision, device=device)
        self._counts = torch.zeros(3, dtype=precision, device=device)  # positions, used, energy
        self._lock = threading.Lock()
        factor = 1 if device.type == "cpu" else _GPU_FACTOR
        self._positions = factor * _POSITIONS
        # Adding a piece's products costs the size of the sums, whatever the piece's own: wide layers need larger ones.
        self._bytes = max(factor * _BYTES, sum(row.nbytes for row in self._hessian.rows) // 8)

    def add(self, x: Tensor, y: Tensor | None = None, first: int = 0) -> None:
        """Add a batch.

        Args:
            x: The layer's input in the pruned network: (N, C, *spatial) or, for linear layers, (..., C).
            y: The dense layer's output, bias included, for the dense network's input; if ``cross`` was asked for.
            first: The index of the first sample in the whole calibration set. Which positions of a sample are
                drawn depends on its index alone.

        Raises:
            InputError: There is no ``y`` although ``cross`` was asked for.
        """
        self.add_all([(x, y, first)])

    @torch.no_grad()
    def add_all(self, batches: Iterable[tuple[Tensor, Tensor | None, int]]) -> None:
        """Add batches, each as :meth:`add` takes one, that are multiplied together.

        Several threads may add at a time; neither who adds what nor in what order changes the sums, as they hold
        float32 products exactly.
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
            self._counts[0] += len(x) * count
            self._counts[1] += len(x) * (drawn or count)
        if drawn:
            self._wait(piece, *self._draw(x, y, first, count, drawn))
        elif isinstance(layer, nn.Linear) or self._taps == 1:
            self._wait(piece, input_columns(layer, x), None if y is None else output_rows(layer, y))
        else:
            self._wait(piece, x if layer.padding_mode == "zeros" else pad_input(layer, x), y, axes)

    def sums(self) -> list[Tensor]:
        """Return every additive sum, which the caller may add others' to in place.

        Their number and shapes depend on the layer alone, so that devices can add theirs up one by one.
        """
        cross = [] if self._cross is None else [self._cross]
        return [*self._hessian.rows, *cross, self._mean, self._output_mean, self._counts]

    def moments(self, name: str = "layer") -> Moments:
        """Return the means and give up the sums; ``name`` is the layer's, for messages.

        Raises:
            InputError: Nothing was added.
            NumericsError: An input, or a dense output, is NaN or infinite.
        """
        positions, used, energy = self._counts.tolist()
        self._counts.zero_()
        if not used:
            raise no_inputs(name)
        mean, output_mean = self._mean.div_(used), self._output_mean.div_(used)
        hessian = self._hessian.mean(used, mean if self._centred else None)
        cross, energy = self._cross, energy / used
        self._cross = None
        if cross is not None:
            cross.div_(used)
            if self._centred:
                cross.addr_(output_mean, mean, alpha=-1)
                energy = max(0.0, energy - float(output_mean.square().sum()))
            cross = cross.float()
        if self._centred:
            _drop_constant(hessian, cross, mean)
        # A NaN or infinity anywhere is one in the sums of squares.
        if not (bool(torch.isfinite(hessian.diagonal()).all()) and math.isfinite(energy)):
            raise not_finite(name)
        return Moments(
            DenseHessian(hessian),
            cross,
            None if cross is None else energy,
            int(positions),
            int(used),
            mean.float() if self._centred else None,
            output_mean.float() if self._centred and cross is not None else None,
        )

    def _draws(self, axes: tuple[Axis, ...], count: int) -> int:
        """How many of a sample's ``count`` positions to draw; 0: take all, which is less work (or no more)."""
        if not 0 < self._drawn < count:
            return 0
        (rows, channels), taps = self._layer.weight.shape[:2], self._taps
        cross = 0 if self._cross is None else taps * channels * rows
        shared = sum(d.positions for d in find_displacements(axes)) if taps > 1 else count
        exact = shared * channels**2 + count * cross
        return self._drawn if self._drawn * (taps * (taps + 1) // 2 * channels**2 + cross) < exact else 0

    def _draw(self, x: Tensor, y: Tensor | None, first: int, count: int, drawn: int) -> tuple[Tensor, Tensor | None]:
        draws = [
            torch.randperm(count, generator=torch.Generator().manual_seed(first + index))[:drawn].sort().values
            for index in range(len(x))
        ]
        positions = torch.stack(draws)
        if y is not None:
            rows = (torch.arange(len(x))[:, None] * count + positions).flatten().to(y.device)
            y = output_rows(self._layer, y).index_select(0, rows)
        return sampled_columns(self._layer, x, positions), y

    def _wait(self, piece: _Piece, x: Tensor, y: Tensor | None, axes: tuple[Axis, ...] = ()) -> None:
        """Put inputs aside, as rows (positions, d) or, with ``axes``, as maps; multiply once there are enough."""
        if axes != piece.axes:
            self._flush(piece)
            piece.axes = axes
        count = math.prod(axis.out for axis in axes)
        size = (x.nbytes + (0 if y is None else y.nbytes)) / len(x)
        share = max(count / self._positions, size / self._bytes)
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
        """Multiply what waits and add the products to the sums."""
        inputs, outputs = piece.inputs, piece.outputs
        piece.inputs, piece.outputs, piece.load = [], [], 0.0
        if not inputs:
            return
        if piece.axes:
            self._add_maps(inputs, self._without_bias(map_of(outputs)) if outputs else None, piece.axes)
        else:
            self._add_rows(_joined(inputs).float(), self._without_bias(_joined(outputs)) if outputs else None)

    def _add_rows(self, x: Tensor, y: Tensor | None) -> None:
        self._hessian.add_products(x)
        if self._centred:
            self._add(self._mean, x.sum(0))
        if self._cross is not None and y is not None:
            self._add(self._cross, y.T @ x)

    def _add_maps(self, inputs: list[Tensor], y: Tensor | None, axes: tuple[Axis, ...]) -> None:
        maps = {phase: x.float() for phase, x in phase_maps(inputs, axes).items()}
        for row, column, block in hessian_blocks(maps, axes):
            self._hessian.add_block(row, column, block)
        if self._centred:
            self._add_tap_sums(maps, axes)
        if self._cross is not None and y is not None:
            taps = self._cross.view(len(self._cross), self._taps, -1)
            for tap, block in cross_blocks(maps, y, axes):
                self._add(taps[:, tap], block)

    def _add_tap_sums(self, maps: Maps, axes: tuple[Axis, ...]) -> None:
        mean = self._mean.view(self._taps, -1)
        sums = {phase: x.sum(-2, keepdim=True) for phase, x in maps.items()}
        for tap, block in cross_blocks(sums, mean.new_ones(*(axis.out for axis in axes), 1, 1).float(), axes):
            self._add(mean[tap], block[0])

    def _add(self, total: Tensor, product: Tensor) -> None:
        with self._lock:
            total += product

    def _without_bias(self, y: Tensor) -> Tensor:
        """Take the bias off dense outputs (..., K), and add their sum and their energy."""
        bias = self._layer.bias
        y = y.float() if bias is None else y.float() - bias.float()
        if self._centred:
            self._add(self._output_mean, y.flatten(0, -2).sum(0))
        # Norms of positions first: ten times as fast as squares summed in float64, and as exact.
        energy = torch.linalg.vector_norm(y, dim=-1).to(self._counts.dtype).square().sum()
        self._add(self._counts[2], energy.float())  # like all products, so that their order does not matter
        return y


@dataclass
class _Piece:
    """Inputs and outputs that wait to be multiplied together, and how much of a full piece they are.

    With ``axes``, the geometry of the layer for them, they are maps; without, rows (positions, d).
    """

    inputs: list[Tensor] = field(default_factory=list)
    outputs: list[Tensor] = field(default_factory=list)
    axes: tuple[Axis, ...] = ()
    load: float = 0.0


def _joined(parts: Sequence[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(list(parts))


def _drop_constant(hessian: Tensor, cross: Tensor | None, mean: Tensor) -> None:
    """Zero the central moments of inputs that hardly vary."""
    constant = hardly_vary(hessian.diagonal(), mean)
    hessian[constant] = 0
    hessian[:, constant] = 0
    if cross is not None:
        cross[:, constant] = 0
