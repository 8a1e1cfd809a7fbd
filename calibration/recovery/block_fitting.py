"""One block of a network, taught to give what it should: its own optimiser, its own early stop."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor, nn
from torch.optim import Adam
from torch.optim.lr_scheduler import CosineAnnealingLR

from calibration.training import FrozenZeros, autocast, autocast_dtype, check_setting

__all__ = ["BlockData", "ReconstructSettings", "fast", "fit_block", "in_order_of"]

_PATIENCE = 4  # epochs without progress after which a block is left
_OTHER_ORDER = 0.1  # relative error beyond which channels may stand in another order


@dataclass(frozen=True)
class ReconstructSettings:
    """How each block learns.

    Raises:
        InputError: A value is out of range.
    """

    epochs: int = 20
    """Passes over the images, at most."""
    batch_size: int = 32
    learning_rate: float = 0.01
    """Adam's, relative to the root mean square of each tensor, at the start; a cosine takes it down."""
    seed: int = 0

    def __post_init__(self) -> None:
        check_setting("epochs", self.epochs, self.epochs >= 1, "at least 1")
        check_setting("batch_size", self.batch_size, self.batch_size >= 1, "at least 1")
        check_setting("learning_rate", self.learning_rate, 0 < self.learning_rate < math.inf, "positive")
        check_setting("seed", self.seed, 0 <= self.seed < 2**32, "from 0 to 4294967295")


@dataclass(frozen=True, eq=False)
class BlockData:
    """What reaches a block and what it should give, sample by sample along the first axis."""

    inputs: Tensor
    targets: Tensor

    def __len__(self) -> int:
        return len(self.inputs)

    def part(self, samples: slice | Tensor) -> BlockData:
        """Return some of the samples, copied where they are picked one by one."""
        return BlockData(fast(self.inputs[samples]), fast(self.targets[samples]))


def fit_block(
    block: nn.Module,
    learn: BlockData,
    judge: BlockData,
    zeros: FrozenZeros,
    settings: ReconstructSettings,
    after_epoch: Callable[[int], None],
) -> tuple[float, float, int]:
    """Minimise ‖block(x) − y‖² by Adam and leave the block with the weights of its best epoch, or those it had.

    Args:
        block: In eval mode; all its parameters learn.
        learn: Samples to learn from.
        judge: Samples to choose the epoch by.
        zeros: What every step leaves at zero.
        settings: How to learn.
        after_epoch: Called with the number of epochs done.

    Returns:
        The relative errors on ``judge`` before and after, and the number of epochs.
    """
    device = learn.inputs.device
    dtype = autocast_dtype("auto", device)
    dtype = None if dtype is torch.float16 else dtype  # its gradients would underflow
    optimizer = Adam([{"params": [p], "lr": settings.learning_rate * _size(p)} for p in block.parameters()])
    optimizer.register_step_post_hook(zeros.restore)
    steps = -(-len(learn) // settings.batch_size)
    scheduler = CosineAnnealingLR(optimizer, settings.epochs * steps)
    generator = torch.Generator().manual_seed(settings.seed)
    scale = _energy(learn.targets) / len(learn)
    before = after = _relative_error(block, judge, settings.batch_size)
    best, best_epoch, epoch = copy.deepcopy(block.state_dict()), 0, 0
    for epoch in range(1, settings.epochs + 1):
        order = torch.randperm(len(learn), generator=generator).to(device)
        for start in range(0, len(learn), settings.batch_size):
            batch = learn.part(order[start : start + settings.batch_size])
            with autocast(device, dtype):
                given = block(batch.inputs)
            optimizer.zero_grad()
            loss = (given.float() - batch.targets).square().sum() / (scale * len(batch))
            loss.backward()
            optimizer.step()
            scheduler.step()
        error = _relative_error(block, judge, settings.batch_size)
        if error < after:  # NaN is not
            best, best_epoch, after = copy.deepcopy(block.state_dict()), epoch, error
        after_epoch(epoch)
        if epoch - best_epoch >= _PATIENCE:
            break
    block.load_state_dict(best)
    return before, after, epoch


def in_order_of(sparse: Tensor, dense: Tensor) -> Tensor:
    """Return dense outputs with their channels in the order that a network has them in whose channels were permuted.

    Where both are close already they are taken as they are; else channels are matched so that the squared
    differences are least, and that order holds if it halves them.

    Args:
        sparse: Outputs (N, C, *spatial), (N, C) or (N, tokens, C).
        dense: Those of the dense network, on the same images.

    Returns:
        The dense outputs in the sparse network's order.
    """
    difference, energy = _energy(sparse - dense), _energy(dense)
    if difference <= _OTHER_ORDER * energy:
        return dense
    axis = 2 if dense.dim() == 3 else 1
    ours, theirs = (each.movedim(axis, 0).flatten(1) for each in (sparse, dense))
    costs = ours.square().sum(1)[:, None] + theirs.square().sum(1) - 2 * ours @ theirs.T
    order = torch.from_numpy(linear_sum_assignment(costs.double().cpu().numpy())[1]).to(dense.device)
    permuted = dense.index_select(axis, order)
    return permuted if _energy(sparse - permuted) < difference / 2 else dense


def fast(values: Tensor) -> Tensor:
    """Return a batch in the layout that convolutions are fastest in, on CPUs by a factor of two."""
    return values.contiguous(memory_format=torch.channels_last) if values.dim() == 4 else values


def _size(parameter: Tensor) -> float:
    """The root mean square, as Adafactor's relative steps have it (Shazeer & Stern, 2018): at least 10⁻³."""
    return max(1e-3, float(parameter.detach().square().mean().sqrt()))


def _relative_error(block: nn.Module, data: BlockData, batch_size: int) -> float:
    difference = 0.0
    with torch.no_grad():
        for start in range(0, len(data), batch_size):
            batch = data.part(slice(start, start + batch_size))
            # Behind a block that starts in place its inputs would be spoilt.
            difference += _energy(block(batch.inputs.clone()) - batch.targets)
    return difference / max(_energy(data.targets), torch.finfo(torch.float32).tiny)


def _energy(values: Tensor) -> float:
    return float(values.square().sum(dtype=torch.float64))
