"""An order of input channels that puts beside each other what N:M pruning can best choose between.

N:M keeps the N best of M consecutive channels: an order's loss is what the others are worth, the sum of the
M − N smallest saliencies over all rows and groups.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from sparsegpt_core.errors import InputError, NumericsError
from sparsegpt_core.patterns import NM

__all__ = ["Search", "order_loss", "search_order"]

_PATIENCE = 20  # rounds that end a search if together they gain less than
_LEAST_GAIN = 1e-3  # of the loss
_WORK = 2_000_000_000  # differences that a search sums: some seconds of one core
_ROUNDS = (10, 400)  # whatever that allows
_STARTS_WORK = 2_000_000  # differences a round, below which a search starts more than once
_STARTS = 8  # at most


@dataclass(frozen=True)
class Search:
    """An order (C,) of channels on the CPU, and the losses of the given order and of this one.

    Position i of the new order holds channel ``order[i]``; ``cut_off`` says that time ran out first.
    """

    order: Tensor
    before: float
    after: float
    cut_off: bool


def search_order(saliencies: Sequence[Tensor], pattern: NM, *, seconds: float = float("inf"), seed: int = 0) -> Search:
    """Search for the order of channels with the least loss.

    Every round takes one channel out of each group, a random one, and puts all of them back by an optimal
    assignment. Channel x joins a group at the cost, in each row, of min(x, t), with t the (M − N)-th smallest of
    the M − 1 channels that stayed, next to terms that no assignment changes; and Σ min(x, t) =
    (Σx + Σt − Σ|x − t|) / 2: the best assignment is the one with the largest sum of L1 distances.
    It can always put everything back, so the loss never rises. Small searches start several times.

    Args:
        saliencies: For every consumer of the channels a matrix (rows, C), non-negative, weighted as it shall
            count against the others, all on one device.
        pattern: N:M; C must be a multiple of M.
        seconds: Where the search is cut off; what it returns then depends on the machine's speed.
        seed: Of the random choice.

    Raises:
        InputError: The matrices differ in C, or C is no multiple of M.
        NumericsError: NaN or infinity.
    """
    stop = time.monotonic() + seconds
    scores = _scores(saliencies, pattern)
    order = torch.arange(len(scores))
    before = after = order_loss(scores, order, pattern)
    size = len(scores) // pattern.m
    work = size * size * scores.shape[1]
    generator = torch.Generator().manual_seed(seed)
    for start in range(min(_STARTS, max(1, _STARTS_WORK // work)) if size > 1 else 0):
        groups = torch.randperm(len(scores), generator=generator) if start else torch.arange(len(scores))
        groups = groups.reshape(size, pattern.m)
        rounds = min(_ROUNDS[1], max(_ROUNDS[0], _WORK // work))
        cut_off = _descend(groups, scores, pattern, generator, rounds, _LEAST_GAIN * before, stop)
        loss = order_loss(scores, groups.flatten(), pattern)
        if loss < after:
            order, after = _sorted(groups), loss
        if cut_off:
            return Search(order, before, after, True)
    return Search(order, before, after, False)


def order_loss(scores: Tensor, order: Tensor, pattern: NM) -> float:
    """Sum the M − N smallest saliencies over the groups of M consecutive channels and all rows.

    Args:
        scores: (C, rows).
        order: (C,), which channel stands where.
        pattern: N:M.
    """
    slots = [scores[channels] for channels in order.to(scores.device).reshape(-1, pattern.m).T]
    # NumPy adds in the same order whatever the number of threads.
    return sum(float(slot.double().cpu().numpy().sum()) for slot in _smallest(slots, pattern.m - pattern.n))


def _scores(saliencies: Sequence[Tensor], pattern: NM) -> Tensor:
    """All consumers' rows as one matrix (C, rows)."""
    widths = {matrix.shape[1] for matrix in saliencies}
    if len(widths) != 1 or next(iter(widths)) % pattern.m:
        raise InputError(f"saliencies of {sorted(widths)} channels have no common order in groups of {pattern.m}")
    scores = torch.cat([matrix.T for matrix in saliencies], dim=1).contiguous()
    if not bool(torch.isfinite(scores).all()):
        raise NumericsError("the saliencies hold NaN or infinity")
    return scores


def _descend(
    groups: Tensor, scores: Tensor, pattern: NM, generator: torch.Generator, rounds: int, least: float, stop: float
) -> bool:
    """Exchange channels, in place, for some rounds or until that gains little; return whether time ran out."""
    gains: list[float] = []
    while len(gains) < rounds and (len(gains) < _PATIENCE or sum(gains[-_PATIENCE:]) > least):
        gains.append(_exchange(groups, scores, pattern, generator))
        if time.monotonic() > stop:
            return True
    return False


def _sorted(groups: Tensor) -> Tensor:
    """The order (C,) that the groups (groups, M) make, changed as little as may be."""
    groups = groups.sort(dim=1).values
    return groups[groups[:, 0].argsort()].flatten()


def _exchange(groups: Tensor, scores: Tensor, pattern: NM, generator: torch.Generator) -> float:
    """Reassign one channel of each group (groups, M), in place; return what that takes off the loss."""
    slot = torch.randint(pattern.m, (len(groups), 1), generator=generator)
    taken = groups.gather(1, slot).flatten()
    stayed = groups[torch.arange(pattern.m) != slot].reshape(len(groups), -1).to(scores.device)
    thresholds = _smallest([scores[channels] for channels in stayed.T], pattern.m - pattern.n)[-1]
    distance = torch.cdist(scores[taken.to(scores.device)], thresholds, p=1).double().cpu().numpy()
    channel, group = linear_sum_assignment(distance, maximize=True)
    gain = float(distance[channel, group].sum() - distance.trace()) / 2
    groups.scatter_(1, slot, taken[torch.from_numpy(group).argsort()][:, None])
    return gain


def _smallest(slots: Sequence[Tensor], count: int) -> list[Tensor]:
    """The ``count`` smallest of several tensors of one shape, entry by entry, in ascending order."""
    slots = list(slots)
    for done in range(count):
        for upper in range(len(slots) - 1, done, -1):
            lower, slot = slots[upper - 1], slots[upper]
            slots[upper - 1], slots[upper] = torch.minimum(lower, slot), torch.maximum(lower, slot)
    return slots[:count]
