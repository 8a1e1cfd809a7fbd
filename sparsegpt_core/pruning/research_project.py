"""The research project's way, wrong axis and wrong update included: for the record only.

Groups run along the flattened (C, R, S) axis, which TensorRT cannot use; rows of the full inverse Hessian move the
weights behind, which is right only for the first column; every layer sees the dense network's inputs, and the stem
and the classifier are pruned with the rest.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sparsegpt_core.network import eval_mode, matrix_to_weight, weight_to_matrix
from sparsegpt_core.patterns import NM, Pattern
from sparsegpt_core.pruning.results import LayerResult
from sparsegpt_core.reasons import Reason
from sparsegpt_core.solvers import keep_mask

__all__ = ["cnn_sparsegpt"]

Layer = nn.Conv2d | nn.Linear
BLOCK = 128
DAMPING = 0.01


@torch.no_grad()
def cnn_sparsegpt(
    model: nn.Module,
    batches: Sequence[Tensor],
    pattern: Pattern,
    *,
    right_axis: bool = False,
    right_update: bool = False,
) -> tuple[LayerResult, ...]:
    """Prune a network in place; layers where groups of M do not come out even stay dense.

    Args:
        model: A network whose convolutions have one group and padding in numbers.
        batches: Calibration images (N, C, H, W), on the model's device.
        pattern: N:M along the flattened axis, or a fraction of zeros of every block of columns.
        right_axis: Let groups run along the input channels at each kernel position.
        right_update: Move the weights by rows of U, H⁻¹ = UᵀU (Frantar & Alistarh, 2023, section 3.3).

    Returns:
        Every layer; its ``relative_error`` is that on the dense network's inputs, as the method sees it.
    """
    names = {module: name for name, module in model.named_modules()}
    results = []
    for module, hessian in _hessians(model, batches).items():
        weight, shape = module.weight, tuple(module.weight.shape)
        layer = names[module], type(module).__name__, shape
        dense = weight_to_matrix(weight) if right_axis else weight.flatten(1)  # (K, R·S·C) or (K, C·R·S)
        if isinstance(pattern, NM) and (shape[1] if right_axis else dense.shape[1]) % pattern.m:
            results.append(LayerResult(*layer, "dense", Reason.CHANNELS_NOT_MULTIPLE, 0.0))
            continue
        if right_axis:
            order = torch.arange(len(hessian), device=weight.device).view(shape[1], -1).T.flatten()
            hessian = hessian[order[:, None], order]
        sparse = _prune(dense, hessian, pattern, right_update=right_update)
        error = float(_energy(dense - sparse, hessian) / _energy(dense, hessian).clamp_min(1e-30))
        weight.copy_(matrix_to_weight(sparse, shape) if right_axis else sparse.view_as(weight))
        zeros = float((sparse == 0).float().mean())
        results.append(LayerResult(*layer, "pruned", None, zeros, relative_error=error))
    return tuple(results)


def _hessians(model: nn.Module, batches: Sequence[Tensor]) -> dict[Layer, Tensor]:
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
    with eval_mode(model):
        for batch in batches:
            model(batch)
    for hook in hooks:
        hook.remove()
    return {module: total / counts[module] for module, total in sums.items()}


def _prune(matrix: Tensor, hessian: Tensor, pattern: Pattern, *, right_update: bool) -> Tensor:
    damped = hessian.clone()
    damped.diagonal().add_(DAMPING * hessian.diagonal().mean())
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(damped))
    moves, losses = inverse, inverse.diagonal()
    if right_update:
        moves = torch.linalg.cholesky(inverse, upper=True)
        losses = moves.diagonal().square()
    sparse, scale = matrix.clone(), moves.diagonal()
    for start in range(0, matrix.shape[1], BLOCK):
        stop = min(start + BLOCK, matrix.shape[1])
        block, rows = sparse[:, start:stop], moves[start:stop]
        keep = keep_mask(block.square() / losses[start:stop], pattern)
        errors = torch.zeros_like(block)
        for column in range(stop - start):
            errors[:, column] = block[:, column] * ~keep[:, column] / scale[start + column]
            block[:, column + 1 :] -= errors[:, column, None] * rows[column, start + column + 1 : stop]
        block.mul_(keep)
        sparse[:, stop:] -= errors @ rows[:, stop:]  # in one product, not column by column: the same, sooner
    return sparse


def _energy(matrix: Tensor, hessian: Tensor) -> Tensor:
    """Return E‖W x‖² over the inputs that H is the mean of."""
    return ((matrix @ hessian) * matrix).sum()
