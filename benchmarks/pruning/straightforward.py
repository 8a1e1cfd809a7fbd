"""Sequential SparseGPT without optimisation: for each layer a forward pass up to it, im2col, the full Gram matrix.

It uses none of the library's statistics and solvers, and so does not change with them.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sparsegpt_core.network.layer_plan import select_layers
from sparsegpt_core.patterns import NM

__all__ = ["straightforward"]

BLOCK = 128
DAMPING = 0.01


class _Stop(Exception):
    pass


@torch.no_grad()
def straightforward(model: nn.Module, batches: list[Tensor], exclude: tuple[str, ...]) -> None:
    """Prune in place the layers of ``model`` that the library would prune."""
    for layer in select_layers(model, batches[0][:2], NM(2, 4), exclude=exclude):
        module = layer.module
        if layer.reason is None and isinstance(module, (nn.Conv2d, nn.Linear)):
            weight = module.weight
            matrix = weight.movedim(1, -1).reshape(len(weight), -1)  # (K, d), columns (r, s, c)
            hessian = _hessian(model, module, batches)
            matrix = matrix * (hessian.diagonal() > 0)  # zero the columns whose inputs are never active
            pruned = _sparsegpt(matrix, _upper(hessian))
            rows, channels, *kernel = weight.shape
            weight.copy_(pruned.reshape(rows, *kernel, channels).movedim(-1, 1))


def _hessian(model: nn.Module, module: nn.Conv2d | nn.Linear, batches: list[Tensor]) -> Tensor:
    columns = module.weight[0].numel()
    total, positions = torch.zeros(columns, columns, dtype=torch.float64), 0
    for x in _inputs(model, module, batches):
        rows = _im2col(module, x)
        total += rows.T @ rows
        positions += len(rows)
    return (total / positions).float()


def _inputs(model: nn.Module, module: nn.Module, batches: list[Tensor]) -> Iterator[Tensor]:
    caught: list[Tensor] = []

    def catch(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        caught.append(inputs[0])
        raise _Stop

    with module.register_forward_pre_hook(catch):
        for batch in batches:
            try:
                model(batch)
            except _Stop:
                yield caught.pop()


def _im2col(module: nn.Conv2d | nn.Linear, x: Tensor) -> Tensor:
    """Return one row for each position, (positions, d), with columns in the order (r, s, c)."""
    if isinstance(module, nn.Linear):
        return x.reshape(-1, x.shape[-1])
    top, left = (int(size) for size in module.padding)
    x = F.pad(x, (left, left, top, top)).permute(0, 2, 3, 1)
    height, width = (
        (x.shape[1 + axis] - module.dilation[axis] * (module.kernel_size[axis] - 1) - 1) // module.stride[axis] + 1
        for axis in range(2)
    )
    taps = [
        x[:, r * module.dilation[0] :: module.stride[0], s * module.dilation[1] :: module.stride[1]][:, :height, :width]
        for r in range(module.kernel_size[0])
        for s in range(module.kernel_size[1])
    ]
    return torch.cat(taps, dim=-1).flatten(0, 2)


def _upper(hessian: Tensor) -> Tensor:
    """Return U, upper triangular, with (H + λI)⁻¹ = UᵀU: one factorisation and one solve."""
    diagonal = hessian.diagonal()
    diagonal.add_((diagonal == 0).float() + DAMPING * diagonal.mean())
    lower = torch.linalg.cholesky(hessian.flip(0, 1))
    inverse: Tensor = torch.linalg.solve_triangular(lower.flip(0, 1), torch.eye(len(hessian)), upper=True)
    return inverse


def _sparsegpt(weight: Tensor, upper: Tensor) -> Tensor:
    """Prune (K, d) to 2:4 column by column (Frantar & Alistarh, 2023, algorithm 1)."""
    work = weight.T.clone(memory_format=torch.contiguous_format)
    diagonal = upper.diagonal()[:, None]
    for start in range(0, len(work), BLOCK):
        stop = min(start + BLOCK, len(work))
        errors = torch.zeros_like(work[start:stop])
        for first in range(start, stop, 4):
            scores = (work[first : first + 4] / diagonal[first : first + 4]) ** 2
            pruned = torch.zeros_like(scores, dtype=torch.bool)
            pruned.scatter_(0, scores.argsort(dim=0)[:2], True)
            for q in range(first, first + 4):
                error = errors[q - start] = work[q] / diagonal[q] * pruned[q - first]
                work[q:stop].addr_(upper[q, q:stop], error, alpha=-1)
                work[q].masked_fill_(pruned[q - first], 0)
        work[stop:].addmm_(upper[start:stop, stop:].T, errors, alpha=-1)
    return work.T
