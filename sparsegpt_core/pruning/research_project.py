"""The method of the research project, with its wrong axis and its wrong update, for comparison only.

Groups run along the flattened (C, R, S) axis, which TensorRT cannot use. Rows of the full inverse Hessian update the
weights to the right of a column, which is correct only for the first column. Every layer sees the dense network's
inputs. The first convolution and the classifier are pruned too.
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
BLOCK_COLUMNS = 128
DAMPING = 0.01  # λ relative to mean(diag H)


@torch.no_grad()
def cnn_sparsegpt(
    model: nn.Module,
    batches: Sequence[Tensor],
    pattern: Pattern,
    *,
    right_axis: bool = False,
    right_update: bool = False,
) -> tuple[LayerResult, ...]:
    """Prune a network in place. Layers whose axis is not a multiple of M stay dense.

    Args:
        model: A network whose convolutions have one group and numeric padding.
        batches: Calibration images (N, C, H, W), on the model's device.
        pattern: N:M along the flattened axis, or a fraction of zeros in every block of columns.
        right_axis: Use groups along the input channels at each kernel position.
        right_update: Update weights by rows of U, H⁻¹ = UᵀU (Frantar & Alistarh, 2023, section 3.3).

    Returns:
        Every layer. Its ``relative_error`` is measured on the dense network's inputs, as in the method.

    Example:
        >>> from sparsegpt_core.patterns import NM
        >>> _ = torch.manual_seed(0)
        >>> model = nn.Sequential(nn.Conv2d(4, 8, 3), nn.Flatten(), nn.Linear(8, 4))
        >>> [layer.sparsity for layer in cnn_sparsegpt(model, [torch.randn(32, 4, 3, 3)], NM(2, 4))]
        [0.5, 0.5]
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
    for start in range(0, matrix.shape[1], BLOCK_COLUMNS):
        stop = min(start + BLOCK_COLUMNS, matrix.shape[1])
        block, rows = sparse[:, start:stop], moves[start:stop]
        keep = keep_mask(block.square() / losses[start:stop], pattern)
        errors = torch.zeros_like(block)
        for column in range(stop - start):
            errors[:, column] = block[:, column] * ~keep[:, column] / scale[start + column]
            block[:, column + 1 :] -= errors[:, column, None] * rows[column, start + column + 1 : stop]
        block.mul_(keep)
        sparse[:, stop:] -= errors @ rows[:, stop:]  # one product gives the same as column by column
    return sparse


def _energy(matrix: Tensor, hessian: Tensor) -> Tensor:
    """Return E‖W x‖² over the inputs that H is the mean of."""
    return ((matrix @ hessian) * matrix).sum()
