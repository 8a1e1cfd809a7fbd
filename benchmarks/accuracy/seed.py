"""The research project's way, wrong axis and wrong update included: for the record only.

Groups run along the flattened (C, R, S) axis, which TensorRT cannot use; rows of the full inverse Hessian move the
weights behind, which is right only for the first column; every layer sees the dense network's inputs, and the stem
and the classifier are pruned with the rest.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sparsegpt_core.masks import keep_mask
from sparsegpt_core.patterns import NM, Pattern

__all__ = ["seed_way"]

Layer = nn.Conv2d | nn.Linear
BLOCK = 128
DAMPING = 0.01


@torch.no_grad()
def seed_way(model: nn.Module, batches: list[Tensor], pattern: Pattern) -> None:
    """Prune ``model`` in place; layers whose columns are no multiple of M stay dense."""
    hessians = _hessians(model, batches)
    for module, hessian in hessians.items():
        matrix = module.weight.flatten(1)  # (K, C·R·S)
        if not isinstance(pattern, NM) or not matrix.shape[1] % pattern.m:
            module.weight.copy_(_prune(matrix, hessian, pattern).view_as(module.weight))


def _hessians(model: nn.Module, batches: list[Tensor]) -> dict[Layer, Tensor]:
    sums: dict[Layer, Tensor] = {}
    counts: dict[Layer, int] = {}

    def observe(module: Layer, inputs: tuple[Tensor, ...]) -> None:
        columns = inputs[0]
        if isinstance(module, nn.Conv2d):
            padding = tuple(int(size) for size in module.padding)
            columns = F.unfold(columns, module.kernel_size, module.dilation, padding, module.stride)
            columns = columns.transpose(1, 2)
        columns = columns.flatten(0, -2)
        sums[module] = sums.get(module, torch.zeros(())) + columns.T @ columns
        counts[module] = counts.get(module, 0) + len(columns)

    hooks = [m.register_forward_pre_hook(observe) for m in model.modules() if isinstance(m, (nn.Conv2d, nn.Linear))]
    for batch in batches:
        model(batch)
    for hook in hooks:
        hook.remove()
    return {module: total / counts[module] for module, total in sums.items()}


def _prune(matrix: Tensor, hessian: Tensor, pattern: Pattern) -> Tensor:
    damped = hessian + DAMPING * hessian.diagonal().mean() * torch.eye(len(hessian))
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(damped))
    sparse, scale = matrix.clone(), inverse.diagonal()
    for start in range(0, matrix.shape[1], BLOCK):
        stop = min(start + BLOCK, matrix.shape[1])
        keep = keep_mask(sparse[:, start:stop].square() / scale[start:stop], pattern)
        for column in range(start, stop):
            error = sparse[:, column] * ~keep[:, column - start] / scale[column]
            sparse[:, column + 1 :] -= error[:, None] * inverse[column, column + 1 :]
            sparse[~keep[:, column - start], column] = 0
    return sparse
