"""The exact refit: the best weights that a mask allows, where the greedy update stops short of them."""

from __future__ import annotations

import torch
from torch import Tensor

from sparsegpt_core.errors import NumericsError
from sparsegpt_core.linalg import Hessian

__all__ = ["AFTER_ADMM", "refit_weights"]

AFTER_ADMM = 8
"""Steps of conjugate gradients that do, whatever the width, where ADMM has come close to the optimum already."""

_CHOLESKY_COLUMNS = 64  # up to here a row's system is solved directly
_CHUNK_BYTES = 256 << 20  # of the rows' systems at a time
_NARROW_COLUMNS, _NARROW_ITERATIONS = 512, 20
_ITERATIONS = 8  # in wider layers
_TOLERANCE = 1e-3


def refit_weights(
    start: Tensor,
    product: Tensor,
    hessian: Hessian,
    shift: Tensor,
    name: str = "layer",
    *,
    direct: bool | None = None,
    iterations: int | None = None,
    tolerance: float = _TOLERANCE,
) -> tuple[Tensor, Tensor]:
    """Minimise tr[(Ŵ − W*) H_λ (Ŵ − W*)ᵀ] over the weights that keep the zeros of ``start``.

    Row by row ŵ_S = (H_λ)_SS⁻¹ (w* H_λ)_S, S being where the row is not zero. Both ways solve for the
    correction of ``start``, so that no row gets worse: narrow layers by Cholesky, many rows at once; wide ones
    by conjugate gradients, where the rows share each product with H.

    Args:
        start: (K, d), as :func:`~sparsegpt_core.solvers.sparsegpt.prune_with_sparsegpt` leaves it; not changed.
        product: W* H_λ (K, d).
        hessian: H (d, d).
        shift: (d,), what H_λ has more than H on its diagonal.
        name: The layer, for messages.
        direct: Whether to solve by Cholesky; by default in layers of at most 64 columns.
        iterations: The most that conjugate gradients take; by default 20 up to 512 columns, where they are cheap,
            and 8 beyond: the first eight make 85 % of the gain there is at 256 columns and 24 % at 4608, but nearly
            all that a whole network's outputs have of it.
        tolerance: Rows whose residual has shrunk to this part of its first norm are done before.

    Returns:
        The refitted weights (K, d), and their residual W* H_λ − Ŵ H_λ (K, d).

    Raises:
        NumericsError: Rounding left a row's system without a Cholesky factor.
    """
    residual = product - start @ hessian - start * shift
    kept = start != 0
    if direct is None:
        direct = start.shape[1] <= _CHOLESKY_COLUMNS
    if direct:
        weight = start + _by_cholesky(residual, kept, hessian.to_dense(), shift, name)
        return weight, product - weight @ hessian - weight * shift
    if iterations is None:
        iterations = _NARROW_ITERATIONS if start.shape[1] <= _NARROW_COLUMNS else _ITERATIONS
    return _by_conjugate_gradients(start, residual, kept, hessian, shift, iterations, tolerance)


def _by_cholesky(residual: Tensor, kept: Tensor, hessian: Tensor, shift: Tensor, name: str) -> Tensor:
    damped = hessian + shift.diag()
    # The kept columns of every row, padded to the longest row by columns that an identity decouples.
    width = int(kept.sum(dim=1).max())
    columns = kept.to(torch.uint8).argsort(dim=1, descending=True, stable=True)[:, :width]
    correction = torch.zeros_like(residual)
    rows = max(1, _CHUNK_BYTES // max(1, damped.element_size() * width**2))
    for own, chunk, right, result in zip(
        *(torch.split(t, rows) for t in (kept, columns, residual, correction)), strict=True
    ):
        valid = own.gather(1, chunk)
        systems = damped[chunk[:, :, None], chunk[:, None, :]]
        systems *= valid[:, :, None] & valid[:, None, :]
        systems.diagonal(dim1=1, dim2=2).add_(~valid)
        lower, info = torch.linalg.cholesky_ex(systems)
        if bool(info.any()):
            raise NumericsError(f"{name}: the refit's system is not positive definite", "Use a larger --damping.")
        right = (right.gather(1, chunk) * valid)[:, :, None]
        result.scatter_(1, chunk, torch.cholesky_solve(right, lower)[:, :, 0])
    return correction


def _by_conjugate_gradients(
    start: Tensor,
    residual: Tensor,
    kept: Tensor,
    hessian: Hessian,
    shift: Tensor,
    iterations: int,
    tolerance: float,
) -> tuple[Tensor, Tensor]:
    """Conjugate gradients within the mask, all rows side by side; the residual is kept outside of it too."""
    weight, final = start.clone(), residual.clone()
    rows = torch.arange(len(start), device=start.device)  # those still at work
    x, mask = start, kept.to(start.dtype)
    direction = residual * mask
    norm = direction.square().sum(dim=1)
    enough = tolerance**2 * norm
    smallest = torch.finfo(norm.dtype).tiny
    for _ in range(iterations):
        going = norm > enough
        if not bool(going.all()):
            weight[rows], final[rows] = x, residual
            state = (rows, x, residual, mask, direction, norm, enough)
            rows, x, residual, mask, direction, norm, enough = (tensor[going] for tensor in state)
        image = torch.addcmul(direction @ hessian, direction, shift)
        step = (norm / (direction * image).sum(dim=1).clamp_min(smallest))[:, None]
        x = torch.addcmul(x, step, direction)
        residual = torch.addcmul(residual, step, image, value=-1)
        gradient = residual * mask
        before, norm = norm, gradient.square().sum(dim=1)
        direction = torch.addcmul(gradient, (norm / before)[:, None], direction)
    weight[rows], final[rows] = x, residual
    return weight, final
