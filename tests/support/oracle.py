"""Slow, exact references for the solvers, and a layer to compare them on."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import unfold

from sparsegpt_core.patterns import NM

__all__ = ["greedy_obs", "image_layer", "relative_error"]


def greedy_obs(weight: Tensor, damped: Tensor, pattern: NM) -> Tensor:
    """Prune by exact greedy Optimal Brain Surgeon (OBC; Frantar, Singh & Alistarh, 2022, algorithm 1).

    Every row loses one weight at a time: the one with the smallest w_q² / [H_S⁻¹]_qq that the pattern allows to be
    removed. The weights left move to their new optimum, and H_S⁻¹ loses row and column q, both exactly.

    Args:
        weight: (K, d).
        damped: H_λ (d, d).
        pattern: N:M; d must be a multiple of M.

    Returns:
        (K, d), float64. Every row is the optimum on its mask.
    """
    weight = weight.double().clone()
    rows = torch.arange(len(weight))
    inverse = damped.double().inverse().repeat(len(weight), 1, 1)
    kept = torch.ones_like(weight, dtype=torch.bool)
    for _ in range(weight.shape[1] // pattern.m * (pattern.m - pattern.n)):
        groups = kept.reshape(len(kept), -1, pattern.m)
        removable = groups & (groups.sum(dim=2, keepdim=True) > pattern.n)
        costs = weight.square() / inverse.diagonal(dim1=1, dim2=2)
        worst = costs.masked_fill(~removable.flatten(1), torch.inf).argmin(dim=1)
        column = inverse[rows, worst]
        step = column / column[rows, worst][:, None]
        weight -= weight[rows, worst][:, None] * step
        inverse.baddbmm_(column[:, :, None], step[:, None, :], alpha=-1)
        kept[rows, worst] = False
        weight[~kept] = 0
        inverse[rows, worst, worst] = 1  # it is 0 up to rounding
    return weight


def image_layer(
    rows: int = 64, channels: int = 32, images: int = 64, side: int = 16, seed: int = 0, *, rectified: bool = False
) -> tuple[Tensor, Tensor]:
    """Return a random 3×3 convolution and the Hessian of inputs that resemble those in a network.

    The inputs have a 1/f amplitude spectrum, like photographs. Their channels are mixed at random, and may be
    rectified, as after a ReLU.

    Returns:
        W (K, 9·C) and H (9·C, 9·C), float32, columns in the order (r, s, c).
    """
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(rows, 9 * channels, generator=generator)
    white = torch.randn(images, channels, side, side, generator=generator)
    mixing = torch.randn(channels, channels, generator=generator)
    frequency = torch.fft.fftfreq(side)
    amplitude = 1 / torch.hypot(frequency[:, None], frequency).clamp_min(1 / side)
    smooth = torch.fft.ifft2(torch.fft.fft2(white) * amplitude).real
    inputs = torch.einsum("dc,nchw->ndhw", mixing, smooth)
    if rectified:
        inputs = inputs.relu()
    taps = unfold(inputs, 3, padding=1).reshape(images, channels, 9, -1)
    columns = taps.permute(0, 3, 2, 1).reshape(-1, 9 * channels).double()
    return weight, (columns.T @ columns / len(columns)).float()


def relative_error(sparse: Tensor, weight: Tensor, hessian: Tensor) -> float:
    """Return tr(Δ H Δᵀ) / tr(W H Wᵀ), Δ = Ŵ − W, in float64."""
    weight, hessian = weight.double(), hessian.double()
    change = sparse.double() - weight
    return float(((change @ hessian) * change).sum() / ((weight @ hessian) * weight).sum())
