"""Channels in an order in which N:M pruning loses less; what the dense network computes stays the same."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from sparsegpt_core.errors import CheckFailedError, InputError
from sparsegpt_core.execution import each, workers
from sparsegpt_core.network import Layer, check_finite, eval_mode, weight_to_matrix
from sparsegpt_core.patterns import NM
from sparsegpt_core.permutation.channel_spaces import ChannelSpace, find_spaces
from sparsegpt_core.permutation.order_search import Search, search_order
from sparsegpt_core.permutation.order_store import OrderStore
from sparsegpt_core.progress import Progress, silent

__all__ = ["PermutationResult", "PermutedSpace", "apply_order", "inverse", "permute_channels"]

_TOLERANCE = 1e-4  # of the largest output


@dataclass(frozen=True)
class PermutedSpace:
    """Channels that layers to prune read, and the order that they were given.

    ``before`` and ``after`` are the losses, saliency pruned away, each layer's relative to its energy, summed over
    ``layers``; ``order`` is None where the channels stay as they are, for the ``reason``.
    """

    space: ChannelSpace
    layers: tuple[str, ...]
    before: float = 0.0
    after: float = 0.0
    order: Tensor | None = None
    reason: str = ""
    cut_off: bool = False

    def to_json(self) -> dict[str, Any]:
        """Return layers, number of channels, both losses, and the reason if they stay."""
        return {
            "layers": list(self.layers),
            "channels": self.space.size,
            "before": self.before,
            "after": self.after,
            "reason": self.reason,
        }


@dataclass(frozen=True)
class PermutationResult:
    """Every space that a layer to prune reads, in running order."""

    spaces: tuple[PermutedSpace, ...]
    seconds: float

    @property
    def cut_off(self) -> bool:
        """Whether time ran out before a search was done: the result then depends on the machine's speed."""
        return any(space.cut_off for space in self.spaces)


def permute_channels(
    model: nn.Module,
    sample: Tensor,
    saliencies: Mapping[str, Tensor],
    layers: Sequence[Layer],
    pattern: NM,
    *,
    energies: Mapping[str, float] | None = None,
    seconds: float = float("inf"),
    seed: int = 0,
    progress: Progress = silent,
    finished: Path | None = None,
) -> PermutationResult:
    """Give the channels between layers, in place, an order in which the pattern costs least saliency.

    Args:
        model: The network; it runs in eval mode meanwhile.
        sample: A real batch (N, C, H, W) on the model's device, on which outputs are compared.
        saliencies: For every layer to prune a matrix (K, d), what each weight is worth, such as w² / [H_λ⁻¹]_jj.
        layers: The network's layers; those without a reason will be pruned.
        pattern: N:M.
        energies: What each layer's saliencies are relative to, tr(W H Wᵀ); by default their sum.
        seconds: Where the searches are cut off, altogether.
        seed: Of the searches.
        progress: Told of every space.
        finished: Where what was found is kept for another run that ends as this one; None keeps nothing.

    Raises:
        ModelError: torch.export cannot trace the network.
        InputError: Saliencies are missing or have another shape than the layer.
        NumericsError: Saliencies or outputs hold NaN or infinity.
        CheckFailedError: Outputs changed; the network is as it was before.
    """
    start = time.monotonic()
    with eval_mode(model), torch.no_grad():
        plan = _plan(find_spaces(model, sample), layers)
        rows = {layer.name: _rows(layer, saliencies, energies or {}) for _, scored in plan for layer in scored}
        costs = [result.space.size * sum(rows[layer.name].numel() for layer in scored) for result, scored in plan]
        share = seconds * workers(len(plan), sample.device) / max(1, sum(costs))
        lock, done = threading.Lock(), itertools.count(1)
        kept = OrderStore(finished, pattern, seconds, seed)

        def search(index: int) -> PermutedSpace:
            result, scored = plan[index]
            if scored:
                own = [rows[layer.name] for layer in scored]
                found = kept.load(own)
                if found is None:
                    left = min(share * costs[index], start + seconds - time.monotonic())
                    found = search_order(own, pattern, seconds=left, seed=seed)
                    kept.save(own, found)
                result = _ordered(result, found)
            with lock:
                progress("permute", next(done), len(plan))
            return result

        progress("permute", 0, len(plan))
        results = each(search, range(len(plan)), sample.device)
        _apply_checked(model, sample, results)
    return PermutationResult(tuple(results), time.monotonic() - start)


@torch.no_grad()
def apply_order(space: ChannelSpace, order: Tensor) -> None:
    """Put channel ``order[i]`` in place i, in every weight and vector of the space.

    Args:
        space: Where.
        order: A permutation (C,).
    """
    for member in space.members:
        entries = (order[:, None] * member.block + torch.arange(member.block)).flatten().to(member.tensor.device)
        member.tensor.copy_(member.tensor.index_select(member.axis, entries))


def inverse(order: Tensor) -> Tensor:
    """Return the order (C,) that undoes ``order``."""
    return order.argsort()


def _plan(spaces: Sequence[ChannelSpace], layers: Sequence[Layer]) -> list[tuple[PermutedSpace, list[Layer]]]:
    """The spaces that layers to prune read, each with those by which its orders are judged."""
    # Layers that share a weight count once.
    named = {id(layer.prunable.weight): layer for layer in reversed(layers) if layer.reason is None}
    plan = []
    for space in spaces:
        readers = [
            (member, named[id(member.tensor)])
            for member in space.members
            if member.reads and id(member.tensor) in named
        ]
        # Behind a flatten, a group's columns are positions of few channels: it follows, but says nothing.
        scored = [layer for member, layer in readers if member.block == 1]
        reason = space.frozen or ("" if scored else "read only flattened, where neighbours are positions")
        if readers:
            names = tuple(layer.name for _, layer in readers)
            plan.append((PermutedSpace(space, names, reason=reason), [] if reason else scored))
    return plan


def _rows(layer: Layer, saliencies: Mapping[str, Tensor], energies: Mapping[str, float]) -> Tensor:
    """The layer's saliencies (K·R·S, C), relative to its energy."""
    matrix, expected = saliencies.get(layer.name), weight_to_matrix(layer.prunable.weight).shape
    if matrix is None or matrix.shape != expected:
        found = "missing" if matrix is None else f"of shape {tuple(matrix.shape)}"
        raise InputError(f"{layer.name}: its saliencies are {found}", f"Give a matrix of shape {tuple(expected)}.")
    check_finite({f"{layer.name}: its saliency": matrix})
    return matrix.reshape(-1, layer.shape[1]) / (energies.get(layer.name) or float(matrix.double().sum()) or 1.0)


def _ordered(result: PermutedSpace, search: Search) -> PermutedSpace:
    found = replace(result, before=search.before, after=search.after, cut_off=search.cut_off)
    if search.after < search.before:
        return replace(found, order=search.order)
    return replace(found, reason="no order that was tried loses less")


def _apply_checked(model: nn.Module, sample: Tensor, results: Sequence[PermutedSpace]) -> None:
    """Apply all orders, or none if the dense network then computes something else."""
    expected = _outputs(model, sample)
    check_finite({f"output {index} of the dense network": output for index, output in enumerate(expected)})
    moved = [(result, result.order) for result in results if result.order is not None]
    for result, order in moved:
        apply_order(result.space, order)
    if _agree(expected, _outputs(model, sample)):
        return
    for result, order in moved:
        apply_order(result.space, inverse(order))
    wrong = []
    for result, order in moved:
        apply_order(result.space, order)
        if not _agree(expected, _outputs(model, sample)):
            wrong.append(", ".join(result.layers))
        apply_order(result.space, inverse(order))
    raise CheckFailedError(
        f"the network's output depends on the order of the channels that {wrong[0] if wrong else 'its layers'} read",
        "This is a bug; please report it. Without permutation the network can be pruned as ever.",
    )


def _outputs(model: nn.Module, sample: Tensor) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(model(sample)) if isinstance(leaf, Tensor)]


def _agree(expected: Sequence[Tensor], outputs: Sequence[Tensor]) -> bool:
    # "not >" would let NaN pass.
    return all(bool((a - b).abs().max() <= _TOLERANCE * a.abs().max()) for a, b in zip(expected, outputs))
