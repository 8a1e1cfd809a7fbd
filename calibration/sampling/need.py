"""How many images to calibrate on, where the user does not say."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from sparsegpt_core.network import Layer

__all__ = ["images_by_need"]

_FEWEST, _MOST, _STEP = 256, 1024, 32
_MORE_WORK, _SMALL_WORK = 0.3, 5e11  # than with the fewest images: this share of it, or so many multiplications
_PRODUCTS_PER_SOLVE = 40  # (K, d) @ (d, d), which take as long on a CPU as solving does
_PER_OUTPUT = 200  # multiplications that take as long as an output does to be normalised, activated, copied and spilled
_CALIBRATED_SHARE = 0.5  # of a training split; the others can judge


class _Work(NamedTuple):
    """Multiplications of pruning, by what they grow with."""

    each_image: float
    fixed: float


def images_by_need(
    layers: Sequence[Layer], available: int, positions_per_column: float, *, fewest: int = _FEWEST
) -> int:
    """Return a number of images, 256 to 1024, with which pruning takes about 30 % or some seconds longer than with 256.

    The error on other images falls with every further image, most in layers with fewer positions than columns. The
    number depends on the network's shapes only (docs/decisions/0049).

    Args:
        layers: The network's layers.
        available: Images of the training split. All of 256 or fewer are taken, and at most half of more than 512.
        positions_per_column: As in :class:`~sparsegpt_core.settings.PruneSettings`.
        fewest: Images to take even if that takes more time.

    Example:
        >>> import torch
        >>> from sparsegpt_core.network import plan_layers
        >>> from sparsegpt_core.settings import PruneSettings
        >>> conv = torch.nn.Conv2d(256, 256, 3, padding=1)
        >>> network = torch.nn.Sequential(torch.nn.Conv2d(3, 256, 1), conv, torch.nn.Conv2d(256, 1, 1))
        >>> for size in (16, 112):
        ...     layers = plan_layers(network, torch.ones(1, 3, size, size), PruneSettings())
        ...     print(images_by_need(layers, available=60_000, positions_per_column=80))
        512
        352
    """
    work = [_work(layer, positions_per_column) for layer in layers]
    each_image = sum(layer.each_image for layer in work)
    base = _FEWEST * each_image + sum(layer.fixed for layer in work)
    further = max(_MORE_WORK * base, _SMALL_WORK) / max(1.0, each_image)
    images = min(_MOST, _FEWEST + int(further) // _STEP * _STEP)
    return min(available, max(fewest, images), max(_FEWEST, int(_CALIBRATED_SHARE * available)))


def _work(layer: Layer, positions_per_column: float) -> _Work:
    columns, weights, vectors = math.prod(layer.shape[1:]), math.prod(layer.shape), layer.vectors_per_sample
    rows = weights // max(1, columns)
    passes = 2.0 * vectors * (weights + _PER_OUTPUT * rows)  # of the dense and the pruned network
    if layer.reason is not None:
        return _Work(passes, 0.0)
    if layer.keeps_positions(_MOST):  # solving multiplies by their matrix and its transpose, not by H
        return _Work(passes + 2 * _PRODUCTS_PER_SOLVE * weights * vectors, 0.0)
    moments = columns * columns + weights  # of one position: H and C
    solving = _PRODUCTS_PER_SOLVE * weights * columns
    if positions_per_column and _FEWEST * vectors >= positions_per_column * columns:  # more images, fewer of each
        return _Work(passes, solving + positions_per_column * columns * moments)
    return _Work(passes + vectors * moments, solving)
