"""Reorder channels to lower the loss of N:M pruning. The dense network's outputs stay the same."""

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

_MAX_OUTPUT_CHANGE = 1e-4  # relative to the largest output


@dataclass(frozen=True)
class PermutedSpace:
    """Channels that layers to prune read, and their new order."""

    space: ChannelSpace
    """The channels."""
    layers: tuple[str, ...]
    """Names of the layers to prune that read them."""
    before: float = 0.0
    """Removed saliency relative to the layer's energy, summed over ``layers``, in the given order."""
    after: float = 0.0
    """The same in the new order."""
    order: Tensor | None = None
    """(C,), channel ``order[i]`` moves to position i. None: the channels keep their order."""
    reason: str = ""
    """Why the channels keep their order."""
    cut_off: bool = False
    """Whether time ran out before the search was done."""

    def to_json(self) -> dict[str, Any]:
        """Return layers, number of channels, both losses, and the reason why channels keep their order."""
        return {
            "layers": list(self.layers),
            "channels": self.space.size,
            "before": self.before,
            "after": self.after,
            "reason": self.reason,
        }


@dataclass(frozen=True)
class PermutationResult:
    """The outcome of :func:`permute_channels`."""

    spaces: tuple[PermutedSpace, ...]
    """Every channel space that a layer to prune reads, in running order."""
    seconds: float
    """Wall-clock time."""

    @property
    def cut_off(self) -> bool:
        """Whether time ran out before a search was done. The result then depends on the machine's speed."""
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
    """Reorder the channels between layers in place, so the pattern removes the least saliency.

    Args:
        model: The network. It runs in eval mode.
        sample: A real batch (N, C, H, W) on the model's device, on which outputs are compared.
        saliencies: A matrix (K, d) for every layer to prune: how much each weight matters, such as w² / [H_λ⁻¹]_jj.
        layers: The network's layers. Those without a reason will be pruned.
        pattern: N:M.
        energies: The energy tr(W H Wᵀ) of each layer, to which its saliencies are relative; by default their sum.
        seconds: Time for all searches, which are then cut off.
        seed: Seed of the searches.
        progress: Called after every channel space.
        finished: Folder of finished searches, for an equal run that resumes this one. None keeps nothing.

    Raises:
        ModelError: torch.export cannot trace the network.
        InputError: Saliencies are missing, or their shape is not the layer's.
        NumericsError: Saliencies or outputs contain NaN or infinity.
        CheckFailedError: Outputs changed. The network is restored.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from sparsegpt_core.network import plan_layers, weight_to_matrix
        >>> from sparsegpt_core.patterns import NM
        >>> from sparsegpt_core.settings import PruneSettings
        >>> _ = torch.manual_seed(0)
        >>> model = nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 2)).eval()
        >>> sample = torch.randn(8, 4)
        >>> layers = plan_layers(model, sample, PruneSettings())
        >>> saliencies = {layer.name: weight_to_matrix(layer.module.weight).square() for layer in layers}
        >>> result = permute_channels(model, sample, saliencies, layers, NM(2, 4))
        >>> [space.layers for space in result.spaces if space.after < space.before]
        [('2',)]
    """
    start = time.monotonic()
    with eval_mode(model), torch.no_grad():
        plan = _plan(find_spaces(model, sample), layers)
        rows = {layer.name: _rows(layer, saliencies, energies or {}) for _, scored in plan for layer in scored}
        costs = [result.space.size * sum(rows[layer.name].numel() for layer in scored) for result, scored in plan]
        threads, waiting = workers(len(plan), sample.device), sum(costs)
        lock, done = threading.Lock(), itertools.count(1)
        kept = OrderStore(finished, pattern, seconds, seed)

        def time_for(index: int) -> float:
            """The search's share of the time that is left; what others do not need is in it."""
            nonlocal waiting
            left = start + seconds - time.monotonic()
            with lock:
                share, waiting = costs[index] / waiting, waiting - costs[index]
            return min(1.0, threads * share) * left

        def search(index: int) -> PermutedSpace:
            result, scored = plan[index]
            if scored:
                own = [rows[layer.name] for layer in scored]
                found, limit = kept.load(own), time_for(index)
                if found is None:
                    found = search_order(own, pattern, seconds=limit, seed=seed)
                    kept.save(own, found)
                result = _ordered(result, found)
            with lock:
                progress("permute", next(done), len(plan))
            return result

        progress("permute", 0, len(plan))
        # Small searches try more starts than their cost says: last, they have what the large ones leave.
        order = sorted(range(len(plan)), key=costs.__getitem__, reverse=True)
        found = dict(zip(order, each(search, order, sample.device), strict=True))
        results = [found[index] for index in range(len(plan))]
        _apply_checked(model, sample, results)
    return PermutationResult(tuple(results), time.monotonic() - start)


@torch.no_grad()
def apply_order(space: ChannelSpace, order: Tensor) -> None:
    """Put channel ``order[i]`` in place i, in every weight and vector of the space.

    Args:
        space: The channels.
        order: A permutation (C,).
    """
    for member in space.members:
        entries = (order[:, None] * member.block + torch.arange(member.block)).flatten().to(member.tensor.device)
        member.tensor.copy_(member.tensor.index_select(member.axis, entries))


def inverse(order: Tensor) -> Tensor:
    """Return the order (C,) that undoes ``order``."""
    return order.argsort()


def _plan(spaces: Sequence[ChannelSpace], layers: Sequence[Layer]) -> list[tuple[PermutedSpace, list[Layer]]]:
    """The spaces that layers to prune read, each with the layers whose saliencies decide the order."""
    # Layers that share a weight count once.
    named = {id(layer.prunable.weight): layer for layer in reversed(layers) if layer.reason is None}
    plan = []
    for space in spaces:
        readers = [
            (member, named[id(member.tensor)])
            for member in space.members
            if member.reads and id(member.tensor) in named
        ]
        # After a flatten, the M columns of a group are positions: the weight follows the order but does not score it.
        scored = [layer for member, layer in readers if member.block == 1]
        reason = space.frozen or ("" if scored else "read only flattened: neighbouring columns are positions")
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
    return replace(found, reason="no order in the search has a lower loss")


def _apply_checked(model: nn.Module, sample: Tensor, results: Sequence[PermutedSpace]) -> None:
    """Apply all orders, or none if the dense network's outputs change."""
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
        "This is a bug; please report it. Use `permute=False`.",
    )


def _outputs(model: nn.Module, sample: Tensor) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(model(sample)) if isinstance(leaf, Tensor)]


def _agree(expected: Sequence[Tensor], outputs: Sequence[Tensor]) -> bool:
    # "<=" is False for NaN.
    return all(bool((a - b).abs().max() <= _MAX_OUTPUT_CHANGE * a.abs().max()) for a, b in zip(expected, outputs))
