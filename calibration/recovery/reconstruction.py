"""Block-wise reconstruction of a pruned network from a few hundred images, without labels.

As BRECQ (Li et al., 2021) does it for quantised networks; here it is zeros that are held.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from calibration.evaluation import Distance, distance, outputs_of
from calibration.recovery.block_fitting import BlockData, ReconstructSettings, fast, fit_block, in_order_of
from calibration.recovery.blocks import Block, find_blocks
from calibration.training import FrozenZeros, Unfinished, copy_state, reproducible
from sparsegpt_core.errors import DataError, ModelError
from sparsegpt_core.execution import device_of
from sparsegpt_core.network import eval_mode
from sparsegpt_core.patterns import Pattern
from sparsegpt_core.progress import Progress, silent

__all__ = ["BlockResult", "ReconstructResult", "ReconstructSettings", "reconstruct"]

_RATES = (1.0, 0.3, 0.1)  # shares of the learning rate, tried in turn until one wins something


@dataclass(frozen=True)
class BlockResult:
    """What became of one block.

    ``before`` and ``after`` are ‖y − ŷ‖² / ‖y‖² on held-out images, y being what the dense block gives in the dense
    network and ŷ what the sparse one gives in the sparse network; equal where nothing was won and the weights stayed.
    ``network`` is how far the whole network then was from the dense one, on the same images.
    """

    name: str
    layers: tuple[str, ...]
    before: float
    after: float
    epochs: int
    network: Distance

    def to_json(self) -> dict[str, Any]:
        """Return the fields under their own names."""
        return asdict(self)


@dataclass(frozen=True)
class ReconstructResult:
    """``start`` is how far the network was from the dense one; ``kept`` counts the blocks whose new weights it has.

    ``untouched`` are pruned layers that belong to no block.
    """

    start: Distance
    blocks: tuple[BlockResult, ...]
    kept: int
    untouched: tuple[str, ...]

    @property
    def end(self) -> Distance:
        """How far the network is now."""
        return self.blocks[self.kept - 1].network if self.kept else self.start


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
) -> ReconstructResult:
    """Bring each block's outputs nearer to the dense network's, in running order, in place.

    A block learns what it gave in the dense network from what reaches it in the sparse one, whose earlier blocks
    are finished: all its parameters do, with the zeros of pruned weights held; batch norms keep their statistics.
    A block whose error on the held-out images does not fall tries again with smaller steps, and where those do not
    help keeps its weights. Of the networks after each block the one is kept whose outputs are nearest to the dense
    one's, be it that at the start. Blocks are those of :func:`~calibration.recovery.blocks.find_blocks`; what one of
    them takes and gives is in memory for all images at once.

    Args:
        model: The sparse network, in float32.
        dense: The dense one; moved to the device of ``model``.
        batches: Images (N, C, H, W) to learn from.
        held_out: Others, to judge by.
        pruned: Names of the pruned layers.
        pattern: What their weights obey.
        settings: How to learn.
        progress: Called with ``"reconstruct"`` and counts of epochs.
        unfinished: Where the work is kept while it is under way. What is found there is gone on with.

    Raises:
        DataError: There are no images, or none to judge by; or what was kept is damaged.
        ModelError: A pruned layer is not there or breaks the pattern, there is no block, or the networks do not match.
    """
    if not batches or not held_out:
        raise DataError("no images are left to judge blocks by", "Lower --samples, or use more data.")
    FrozenZeros(model, pruned, pattern)  # all of them obey, before anything is changed
    blocks = find_blocks(model, pruned, batches[0][:2])
    if not blocks:
        raise ModelError("no block of the model can be reconstructed by itself", "Use --method training.")
    dense.to(device_of(model))
    run = _Run(model, dense, batches, held_out)
    if unfinished and (state := unfinished.load()[0]):
        run.load_state(state)
    each = settings.epochs

    def report(epoch: int) -> None:
        progress("reconstruct", len(run.results) * each + epoch, len(blocks) * each)

    report(0)
    with reproducible(settings.seed, device_of(model)), eval_mode(model), eval_mode(dense):
        for block in blocks[len(run.results) :]:
            run.improve(block, pattern, settings, report)
            report(0)
            if unfinished:
                unfinished.keep(run.state)
    model.load_state_dict(run.best_state)
    if unfinished:
        unfinished.remove()
    inside = {layer for block in blocks for layer in block.layers}
    untouched = tuple(layer for layer in pruned if layer not in inside)
    return ReconstructResult(run.start, tuple(run.results), run.kept, untouched)


class _Run:
    """Both networks, and what came of the blocks so far."""

    def __init__(
        self, model: nn.Module, dense: nn.Module, batches: Sequence[Tensor], held_out: Sequence[Tensor]
    ) -> None:
        self._model, self._dense = model, dense
        self._images, self._held_out, self._learn = [*batches, *held_out], held_out, sum(map(len, batches))
        self._reference = outputs_of(dense, held_out)
        self.start = self._distance()
        self.results: list[BlockResult] = []
        self.best_state = copy_state(model)

    @property
    def kept(self) -> int:
        """After how many blocks the network was nearest to the dense one."""
        errors = [self.start.logit_error, *(each.network.logit_error for each in self.results)]
        return errors.index(min(errors))

    def improve(
        self, block: Block, pattern: Pattern, settings: ReconstructSettings, after_epoch: Callable[[int], None]
    ) -> None:
        """Let a block learn, and note what came of it."""
        zeros = FrozenZeros(self._model, block.layers, pattern)
        data = self._data(block)
        learn, judge = data.part(slice(self._learn)), data.part(slice(self._learn, None))
        for share in _RATES:
            gentler = replace(settings, learning_rate=share * settings.learning_rate)
            before, after, epochs = fit_block(block.of(self._model), learn, judge, zeros, gentler, after_epoch)
            if after < before:
                break
        self.results.append(BlockResult(block.name, block.layers, before, after, epochs, self._distance()))
        if self.kept == len(self.results):
            self.best_state = copy_state(self._model)

    def state(self) -> dict[str, Any]:
        """Everything that the rest of the work depends on."""
        results = [asdict(each) for each in self.results]
        state = {"model": self._model.state_dict(), "best_state": self.best_state, "results": results}
        return {"done": len(results), **state}

    def load_state(self, state: dict[str, Any]) -> None:
        """Go on from what :meth:`state` gave."""
        self._model.load_state_dict(state["model"])
        self.best_state = state["best_state"]
        self.results = [BlockResult(**each | {"network": Distance(**each["network"])}) for each in state["results"]]

    def _distance(self) -> Distance:
        return distance(self._reference, outputs_of(self._model, self._held_out))

    def _data(self, block: Block) -> BlockData:
        inputs, given = _through(block, self._model, self._images)
        _, targets = _through(block, self._dense, self._images)
        return BlockData(inputs, in_order_of(given, targets))


class _Stop(Exception):
    """Unwinds a forward pass; never leaves this module."""


def _through(block: Block, model: nn.Module, images: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """What a block is given and what it gives, on all images; nothing behind it runs."""
    inputs: list[Tensor] = []
    outputs: list[Tensor] = []

    def enter(_: nn.Module, given: tuple[Tensor, ...]) -> None:
        inputs.append(given[0].clone())  # what comes may write in place

    def leave(_: nn.Module, given: tuple[Tensor, ...], output: Tensor) -> None:
        outputs.append(output)
        raise _Stop

    first, last = (model.get_submodule(block.modules[end]) for end in (0, -1))
    with first.register_forward_pre_hook(enter), last.register_forward_hook(leave), torch.no_grad():
        for batch in images:
            with contextlib.suppress(_Stop):
                model(fast(batch.to(device_of(model))))
    return torch.cat(inputs), torch.cat(outputs)
