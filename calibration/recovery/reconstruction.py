"""Block-wise reconstruction of a pruned network from a few hundred images, without labels.

BRECQ (Li et al., 2021) does it for quantised networks. Here the zeros of the pruned weights stay zero.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from calibration.evaluation import Distance, distance, outputs_of
from calibration.recovery.block_fitting import (
    BlockData,
    BlockFit,
    ReconstructSettings,
    match_channel_order,
)
from calibration.recovery.blocks import Block, find_blocks
from calibration.training import FrozenZeros, Unfinished, copy_state, reproducible
from sparsegpt_core.errors import DataError, ModelError
from sparsegpt_core.execution import available_memory, device_of, used_memory
from sparsegpt_core.interrupts import defer_interrupts
from sparsegpt_core.network import channels_last, eval_mode
from sparsegpt_core.patterns import Pattern
from sparsegpt_core.progress import Progress, silent

__all__ = ["BlockResult", "ReconstructResult", "ReconstructSettings", "reconstruct"]

_FREE_FRACTION = 0.8  # of the free memory that the inputs and outputs of one block may take without a limit
_GIB = 1 << 30
_LEARNING_RATE_FACTORS = (1.0, 0.3, 0.1)  # tried in this order until one lowers the error


@dataclass(frozen=True)
class BlockResult:
    """The reconstruction of one block. All errors are on held-out images.

    The relative error is ‖y − ŷ‖² / ‖y‖². y are the outputs of the dense block in the dense network, ŷ those of the
    sparse block in the sparse network.
    """

    name: str
    """The block's module, or its first and last one."""
    layers: tuple[str, ...]
    """Names of its pruned layers."""
    before: float
    """Relative error before."""
    after: float
    """Relative error after. It equals ``before`` if the weights stayed the same."""
    epochs: int
    """Epochs of the last attempt."""
    network: Distance
    """Distance of the whole network from the dense one after this block."""

    def to_json(self) -> dict[str, Any]:
        """Return the fields by name."""
        return asdict(self)


@dataclass(frozen=True)
class ReconstructResult:
    """The reconstruction of a network."""

    start: Distance
    """Distance of the network from the dense one before."""
    blocks: tuple[BlockResult, ...]
    """All blocks, in running order."""
    kept: int
    """The network has the new weights of this many blocks, counted from the first one."""
    untouched: tuple[str, ...]
    """Pruned layers that are in no block."""

    @property
    def end(self) -> Distance:
        """Distance of the network from the dense one after."""
        return self.blocks[self.kept - 1].network if self.kept else self.start

    def to_json(self) -> dict[str, Any]:
        """Return the distances before and after, and the blocks, under the names of ``finetune --json``."""
        return {
            "held_out": {"before": self.start.to_json(), "after": self.end.to_json()},
            "blocks": [block.to_json() for block in self.blocks],
            "kept_blocks": self.kept,
            "untouched": list(self.untouched),
        }


def reconstruct(
    model: nn.Module,
    dense: nn.Module,
    batches: Sequence[Tensor],
    held_out: Sequence[Tensor],
    pruned: Sequence[str],
    pattern: Pattern,
    settings: ReconstructSettings,
    progress: Progress = silent,
    unfinished: Unfinished | None = None,
    memory_limit: int | None = None,
) -> ReconstructResult:
    """Fit the outputs of each block to those of the dense network, in running order and in place.

    Each block of :func:`~calibration.recovery.blocks.find_blocks` learns to map its inputs in the sparse network,
    after the earlier blocks were fitted, to its outputs in the dense network. All its parameters learn, but the zeros
    of pruned weights stay zero and batch norms keep their statistics.

    If the held-out error of a block does not fall, it is fitted again with smaller steps, and keeps its weights if
    those do not help either. Finally the network returns to the point, after a block or at the start, where its
    held-out outputs were nearest to those of the dense network.

    The inputs and outputs of one block are in memory for all images at once.

    Args:
        model: The sparse network, in float32.
        dense: The dense network. It is moved to the device of ``model``.
        batches: Images (N, C, H, W) to learn from.
        held_out: Other images (N, C, H, W), on which errors are measured.
        pruned: Names of the pruned layers.
        pattern: The pattern that their weights follow.
        settings: How each block learns.
        progress: Called with ``"reconstruct"`` and counts of epochs.
        unfinished: Where to save the state. A state found there is continued, to the same weights as without the
            interruption.
        memory_limit: The largest number of bytes of the process (on CUDA: of its tensors). None: what is free.

    Raises:
        DataError: There are no images to learn from or no held-out ones, or the saved state is damaged.
        ModelError: A pruned layer is missing or violates the pattern, no block can be fitted, the inputs and outputs of
            one do not fit into memory, or the networks do not match. Nothing has changed.

    Example:
        >>> import copy
        >>> from sparsegpt_core.patterns import NM
        >>> _ = torch.manual_seed(0)
        >>> dense = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 4))
        >>> model = copy.deepcopy(dense)
        >>> _ = model[0].weight.data[:, ::2].zero_()
        >>> images = list(torch.randn(4, 64, 8))
        >>> settings = ReconstructSettings(epochs=5, batch_size=8)
        >>> result = reconstruct(model, dense, images[:3], images[3:], ["0"], NM(2, 4), settings)
        >>> result.end.logit_error < result.start.logit_error
        True
    """
    if not batches or not held_out:
        raise DataError("no images are held out to measure the blocks' errors", "Lower `samples`, or use more data.")
    FrozenZeros(model, pruned, pattern)  # refuses a violation before anything changes
    blocks = find_blocks(model, pruned, batches[0][:2])
    if not blocks:
        raise ModelError("the model has no block that can be reconstructed", "Fine-tune it with `method=training`.")
    dense.to(device_of(model))
    _check_memory(model, blocks, batches, held_out, memory_limit)
    run = _Run(model, dense, batches, held_out)
    if unfinished and (state := unfinished.load()[0]):
        run.load_state(state)

    def report(epoch: int) -> None:
        done, total = len(run.results) * settings.epochs + epoch, len(blocks) * settings.epochs
        progress("reconstruct", done, total)

    def after_step() -> None:
        run.steps += 1
        if unfinished:
            unfinished.keep(run.state)

    report(run.epoch)
    with (
        reproducible(settings.seed, device_of(model)),
        eval_mode(model),
        eval_mode(dense),
        unfinished.kept_on_interrupt(run.state) if unfinished else contextlib.nullcontext(),
    ):
        for block in blocks[len(run.results) :]:
            run.improve(block, pattern, settings, report, after_step)
            report(0)  # the block may have stopped early
    model.load_state_dict(run.best_state)
    if unfinished:
        unfinished.remove()
    in_blocks = {layer for block in blocks for layer in block.layers}
    untouched = tuple(layer for layer in pruned if layer not in in_blocks)
    return ReconstructResult(run.start, tuple(run.results), run.kept, untouched)


def _check_memory(
    model: nn.Module, blocks: Sequence[Block], batches: Sequence[Tensor], held_out: Sequence[Tensor], limit: int | None
) -> None:
    """Refuse blocks whose inputs, outputs and targets do not fit into memory."""
    device, images = device_of(model), sum(map(len, (*batches, *held_out)))
    used = used_memory(device)
    free = available_memory(device) if limit is None else limit - used
    for block in blocks:
        with eval_mode(model):
            inputs, outputs = _inputs_and_outputs(block, model, [batches[0][:1]])
        needed = images * (inputs.nbytes + 2 * outputs.nbytes)
        if needed > _FREE_FRACTION * free:
            raise ModelError(
                f"{block.name} needs about {needed / _GIB:.2f} GiB for its inputs and outputs on {images} images, "
                f"{max(free, 0) / _GIB:.2f} GiB are free",
                "Raise `memory_limit`, or lower `samples`.",
            )


class _Run:
    """Both networks, and the results of the blocks so far."""

    def __init__(
        self, model: nn.Module, dense: nn.Module, batches: Sequence[Tensor], held_out: Sequence[Tensor]
    ) -> None:
        self._model, self._dense = model, dense
        self._images, self._held_out = [*batches, *held_out], held_out
        self._learn_count = sum(map(len, batches))
        self._reference = outputs_of(dense, held_out)
        self.start = self._distance()
        self.results: list[BlockResult] = []
        self.steps = 0
        self.best_state = copy_state(model)
        self._first_state = self.best_state  # of this block
        self._attempt = 0  # at this block
        self._fit: BlockFit | None = None
        self._saved: dict[str, Any] | None = None  # the state of that attempt in an interrupted run

    @property
    def kept(self) -> int:
        """The number of blocks after which the network was nearest to the dense one."""
        errors = [self.start.logit_error, *(each.network.logit_error for each in self.results)]
        return errors.index(min(errors))

    @property
    def epoch(self) -> int:
        """Epochs of this block so far."""
        return int(self._saved["epoch"]) if self._saved else 0

    def improve(
        self,
        block: Block,
        pattern: Pattern,
        settings: ReconstructSettings,
        after_epoch: Callable[[int], None],
        after_step: Callable[[], None],
    ) -> None:
        """Fit a block and add its result."""
        zeros = FrozenZeros(self._model, block.layers, pattern)
        data = self._data(block)
        learn, judge = data.part(slice(self._learn_count)), data.part(slice(self._learn_count, None))
        for attempt, factor in enumerate(_LEARNING_RATE_FACTORS):
            if attempt < self._attempt:
                continue
            scaled = replace(settings, learning_rate=factor * settings.learning_rate)
            fit = BlockFit(block.of(self._model), learn, judge, zeros, scaled)
            with defer_interrupts():
                if self._saved:
                    fit.load_state(self._saved)
                self._attempt, self._fit, self._saved = attempt, fit, None
            fit.run(after_epoch, after_step)
            if fit.after < fit.before:
                break
        with defer_interrupts():
            self._add_result(block, fit)

    def _add_result(self, block: Block, fit: BlockFit) -> None:
        self.results.append(BlockResult(block.name, block.layers, fit.before, fit.after, fit.epoch, self._distance()))
        self._first_state = copy_state(self._model)
        if self.kept == len(self.results):
            self.best_state = self._first_state
        self._attempt, self._fit = 0, None

    def state(self) -> dict[str, Any]:
        """Return everything that the remaining steps depend on."""
        return {
            "done": self.steps,
            "model": self._first_state,
            "best_state": self.best_state,
            "results": [asdict(each) for each in self.results],
            "attempt": self._attempt,
            "fit": self._fit.state() if self._fit else self._saved,
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Continue from a state that :meth:`state` returned."""
        self._model.load_state_dict(state["model"])
        self._first_state, self.best_state, self.steps = state["model"], state["best_state"], state["done"]
        self.results = [BlockResult(**each | {"network": Distance(**each["network"])}) for each in state["results"]]
        self._attempt, self._saved = state.get("attempt", 0), state.get("fit")  # an earlier version saved whole blocks

    def _distance(self) -> Distance:
        return distance(self._reference, outputs_of(self._model, self._held_out))

    def _data(self, block: Block) -> BlockData:
        inputs, outputs = _inputs_and_outputs(block, self._model, self._images)
        _, targets = _inputs_and_outputs(block, self._dense, self._images)
        return BlockData(inputs, match_channel_order(outputs, targets))


class _Stop(Exception):
    """Ends a forward pass early. It does not leave this module."""


def _inputs_and_outputs(block: Block, model: nn.Module, images: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """The inputs and outputs of a block on all images. Modules after it do not run."""
    inputs: list[Tensor] = []
    outputs: list[Tensor] = []

    def enter(_: nn.Module, arguments: tuple[Tensor, ...]) -> None:
        inputs.append(arguments[0].clone())  # the block may write to its input

    def leave(_: nn.Module, arguments: tuple[Tensor, ...], output: Tensor) -> None:
        outputs.append(output)
        raise _Stop

    first, last = (model.get_submodule(block.modules[end]) for end in (0, -1))
    with first.register_forward_pre_hook(enter), last.register_forward_hook(leave), torch.no_grad():
        for batch in images:
            with contextlib.suppress(_Stop):
                model(channels_last(batch.to(device_of(model))))
    return torch.cat(inputs), torch.cat(outputs)
