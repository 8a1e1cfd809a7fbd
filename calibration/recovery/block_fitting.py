"""Fits one block of a network to target outputs, with its own optimiser and early stop."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Adam
from torch.optim.lr_scheduler import CosineAnnealingLR

from calibration.training import FrozenZeros, check_setting
from sparsegpt_core.interrupts import defer_interrupts
from sparsegpt_core.network import channels_last

__all__ = ["BlockData", "BlockFit", "ReconstructSettings", "match_channel_order"]

_PATIENCE_EPOCHS = 4  # stop a block after this many epochs without a lower error
_NO_ORDER = torch.empty(0, dtype=torch.long)  # of an epoch that has not begun
_SAVED_ATTRIBUTES = ("epoch", "before", "after", "_order", "_position", "_best", "_best_epoch")
_SAVED_PARTS = ("_block", "_optimizer", "_scheduler")
_MIN_ERROR_TO_REORDER = 0.1  # relative error above which the channels may be permuted


@dataclass(frozen=True)
class ReconstructSettings:
    """How each block learns.

    Raises:
        InputError: A value is out of range.

    Example:
        >>> ReconstructSettings(epochs=5).batch_size
        32
    """

    epochs: int = 20
    """Passes over the images, at most."""
    batch_size: int = 32
    """Images per step."""
    learning_rate: float = 0.01
    """Adam's first learning rate, relative to the root mean square of each tensor. It falls along a cosine."""
    seed: int = 0
    """Seed of the image order."""

    def __post_init__(self) -> None:
        check_setting("epochs", self.epochs, self.epochs >= 1, "at least 1")
        check_setting("batch_size", self.batch_size, self.batch_size >= 1, "at least 1")
        check_setting("learning_rate", self.learning_rate, 0 < self.learning_rate < math.inf, "positive")
        check_setting("seed", self.seed, 0 <= self.seed < 2**32, "from 0 to 4294967295")


@dataclass(frozen=True, eq=False)
class BlockData:
    """Inputs of a block and the outputs to fit, with samples along the first axis."""

    inputs: Tensor
    """(N, ...)."""
    targets: Tensor
    """(N, ...)."""

    def __len__(self) -> int:
        return len(self.inputs)

    def part(self, samples: slice | Tensor) -> BlockData:
        """Return some of the samples. A tensor of indices copies them."""
        return BlockData(channels_last(self.inputs[samples]), channels_last(self.targets[samples]))


class BlockFit:
    """Minimises ‖block(x) − y‖² by Adam. Its state is whole wherever Ctrl-C can end it.

    Args:
        block: A block in eval mode. All its parameters learn.
        learn: Samples to learn from.
        judge: Samples that choose the best epoch.
        zeros: Weights that stay zero after every step.
        settings: How to learn.
    """

    def __init__(
        self, block: nn.Module, learn: BlockData, judge: BlockData, zeros: FrozenZeros, settings: ReconstructSettings
    ) -> None:
        self._block, self._learn, self._judge, self._settings = block, learn, judge, settings
        # Adam's steps have the size of the learning rate: make it relative to the size of each tensor.
        rate = settings.learning_rate
        self._optimizer = Adam([{"params": [p], "lr": rate * _root_mean_square(p)} for p in block.parameters()])
        self._optimizer.register_step_post_hook(zeros.restore)
        steps = -(-len(learn) // settings.batch_size)
        self._scheduler = CosineAnnealingLR(self._optimizer, settings.epochs * steps)
        self._generator = torch.Generator().manual_seed(settings.seed)
        self._scale = _energy(learn.targets) / len(learn)  # mean ‖y‖² of a sample
        self._order, self._position = _NO_ORDER, 0  # of the samples in this epoch, and the next one
        self.epoch = self._best_epoch = 0
        self.before = self.after = _relative_error(block, judge, settings.batch_size)
        self._best = copy.deepcopy(block.state_dict())

    def run(self, after_epoch: Callable[[int], None], after_step: Callable[[], None]) -> None:
        """Leave the block with its best weights, which may be its first ones.

        ``before`` and ``after`` are then the relative errors ‖block(x) − y‖² / ‖y‖² on the judging samples, ``epoch``
        is the number of epochs.

        Args:
            after_epoch: Called with the number of epochs done.
            after_step: Called after every step.
        """
        while self.epoch < self._settings.epochs and self.epoch - self._best_epoch < _PATIENCE_EPOCHS:
            with defer_interrupts():
                if not len(self._order):  # a new epoch, not an interrupted one
                    self._order = torch.randperm(len(self._learn), generator=self._generator)
            while self._position < len(self._learn):
                with defer_interrupts():
                    self._step()
                after_step()
            with defer_interrupts():
                self._close_epoch()
            after_epoch(self.epoch)
        self._block.load_state_dict(self._best)

    def state(self) -> dict[str, Any]:
        """Return everything that the remaining steps depend on, without the samples."""
        return {
            **{name: getattr(self, name) for name in _SAVED_ATTRIBUTES},
            **{name: getattr(self, name).state_dict() for name in _SAVED_PARTS},
            "_generator": self._generator.get_state(),
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Continue from a state that :meth:`state` returned."""
        for name in _SAVED_ATTRIBUTES:
            setattr(self, name, state[name])
        for name in _SAVED_PARTS:
            getattr(self, name).load_state_dict(state[name])
        self._generator.set_state(state["_generator"])

    def _step(self) -> None:
        end = self._position + self._settings.batch_size
        batch = self._learn.part(self._order[self._position : end].to(self._learn.inputs.device))
        outputs = self._block(batch.inputs)  # in FP32: after a good pruning the errors are as small as BF16's rounding
        self._optimizer.zero_grad()
        loss = (outputs - batch.targets).square().sum() / (self._scale * len(batch))
        loss.backward()
        self._optimizer.step()
        self._scheduler.step()
        self._position = end

    def _close_epoch(self) -> None:
        """Keep the weights of the best epoch."""
        error = _relative_error(self._block, self._judge, self._settings.batch_size)
        self.epoch, self._order, self._position = self.epoch + 1, _NO_ORDER, 0
        if error < self.after:  # False for NaN
            self._best, self._best_epoch, self.after = copy.deepcopy(self._block.state_dict()), self.epoch, error


def match_channel_order(sparse: Tensor, dense: Tensor) -> Tensor:
    """Return the dense outputs with their channels in the order of a sparse network whose channels were permuted.

    If the outputs are close, the order stays. Otherwise the order with the least squared difference is searched, and
    it is used if it halves the difference.

    Args:
        sparse: Outputs (N, C, *spatial), (N, C) or (N, tokens, C).
        dense: Outputs of the dense network on the same images, of the same shape.
    """
    from scipy.optimize import linear_sum_assignment  # slow to import

    difference, energy = _energy(sparse - dense), _energy(dense)
    if difference <= _MIN_ERROR_TO_REORDER * energy:
        return dense
    axis = 2 if dense.dim() == 3 else 1
    rows, columns = (each.movedim(axis, 0).flatten(1) for each in (sparse, dense))  # (C, N · positions)
    # ‖a − b‖² = ‖a‖² + ‖b‖² − 2 a·b for every pair of channels: (C, C)
    costs = rows.square().sum(1)[:, None] + columns.square().sum(1) - 2 * rows @ columns.T
    order = torch.from_numpy(linear_sum_assignment(costs.double().cpu().numpy())[1]).to(dense.device)
    permuted = dense.index_select(axis, order)
    return permuted if _energy(sparse - permuted) < difference / 2 else dense


def _root_mean_square(parameter: Tensor) -> float:
    """The root mean square, at least 10⁻³, as in Adafactor's relative steps (Shazeer & Stern, 2018)."""
    return max(1e-3, float(parameter.detach().square().mean().sqrt()))


def _relative_error(block: nn.Module, data: BlockData, batch_size: int) -> float:
    """‖block(x) − y‖² / ‖y‖²."""
    difference = 0.0
    with torch.no_grad():
        for start in range(0, len(data), batch_size):
            batch = data.part(slice(start, start + batch_size))
            # A block whose first module works in place would overwrite its inputs.
            difference += _energy(block(batch.inputs.clone()) - batch.targets)
    return difference / max(_energy(data.targets), torch.finfo(torch.float32).tiny)


def _energy(values: Tensor) -> float:
    """‖values‖², summed in float64."""
    return float(values.square().sum(dtype=torch.float64))
