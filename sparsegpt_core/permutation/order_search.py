"""Search an order of input channels in which N:M pruning removes the least saliency.

N:M keeps the N best of M consecutive channels. The loss of an order is the removed saliency: the sum of the M − N
smallest saliencies over all rows and groups.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sparsegpt_core.errors import InputError, NumericsError
from sparsegpt_core.patterns import NM

__all__ = ["Search", "order_loss", "search_order"]

_PATIENCE_ROUNDS = 20  # a search ends when this many rounds together gain less than _MIN_GAIN
_MIN_GAIN = 1e-3  # relative to the first order's loss
_MAX_DIFFERENCES = 2_000_000_000  # differences that one start sums: a few seconds on one core
_MIN_ROUNDS, _MAX_ROUNDS = 10, 400  # of one start, regardless of _MAX_DIFFERENCES
_DIFFERENCES_FOR_STARTS = 2_000_000  # differences per round; searches with fewer start several times
_MAX_STARTS = 8


@dataclass(frozen=True)
class Search:
    """The outcome of a search."""

    order: Tensor
    """(C,), on the CPU: channel ``order[i]`` moves to position i."""
    before: float
    """Loss of the given order."""
    after: float
    """Loss of ``order``."""
    cut_off: bool
    """Whether time ran out before the search was done."""


def search_order(saliencies: Sequence[Tensor], pattern: NM, *, seconds: float = float("inf"), seed: int = 0) -> Search:
    """Search for the order of channels with the least loss.

    Every round takes one random channel out of each group, and puts all of them back by an optimal assignment. In each
    row a channel x joins a group at the cost min(x, t), where t is the (M − N)-th smallest of the M − 1 channels that
    stayed; all other terms do not depend on the assignment. Since Σ min(x, t) = (Σx + Σt − Σ|x − t|) / 2, the best
    assignment has the largest sum of L1 distances. The assignment that puts every channel back is among the
    candidates, so the loss never rises. Small searches start several times.

    Args:
        saliencies: A non-negative matrix (rows, C) for every layer that reads the channels, all on one device. Their
            scales are their weights against each other.
        pattern: N:M. C must be a multiple of M.
        seconds: Time after which the search is cut off. The result then depends on the machine's speed.
        seed: Seed of the random choice.

    Raises:
        InputError: The matrices differ in C, or C is not a multiple of M.
        NumericsError: NaN or infinity.

    Example:
        >>> import torch
        >>> from sparsegpt_core.patterns import NM
        >>> found = search_order([torch.tensor([[9.0, 8, 7, 6, 1, 2, 3, 4]])], NM(2, 4))
        >>> found.before, found.after  # 7 + 6 + 1 + 2, and 1 + 2 + 3 + 4
        (16.0, 10.0)
    """
    stop = time.monotonic() + seconds
    scores = _scores(saliencies, pattern)
    order = torch.arange(len(scores))
    before = after = order_loss(scores, order, pattern)
    size = len(scores) // pattern.m
    differences = size * size * scores.shape[1]  # summed in one round
    generator = torch.Generator().manual_seed(seed)
    for start in range(min(_MAX_STARTS, max(1, _DIFFERENCES_FOR_STARTS // differences)) if size > 1 else 0):
        groups = torch.randperm(len(scores), generator=generator) if start else torch.arange(len(scores))
        groups = groups.reshape(size, pattern.m)
        rounds = min(_MAX_ROUNDS, max(_MIN_ROUNDS, _MAX_DIFFERENCES // differences))
        cut_off = _descend(groups, scores, pattern, generator, rounds, _MIN_GAIN * before, stop)
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
        order: (C,), the channel at each position.
        pattern: N:M.
    """
    slots = [scores[channels] for channels in order.to(scores.device).reshape(-1, pattern.m).T]
    # NumPy adds in the same order with any number of threads.
    return sum(float(slot.double().cpu().numpy().sum()) for slot in _smallest(slots, pattern.m - pattern.n))


def _scores(saliencies: Sequence[Tensor], pattern: NM) -> Tensor:
    """All consumers' rows as one matrix (C, rows)."""
    widths = {matrix.shape[1] for matrix in saliencies}
    if len(widths) != 1 or next(iter(widths)) % pattern.m:
        raise InputError(f"saliencies of {sorted(widths)} channels cannot share an order in groups of {pattern.m}")
    scores = torch.cat([matrix.T for matrix in saliencies], dim=1).contiguous()
    if not bool(torch.isfinite(scores).all()):
        raise NumericsError("the saliencies contain NaN or infinity")
    return scores


def _descend(
    groups: Tensor, scores: Tensor, pattern: NM, generator: torch.Generator, rounds: int, min_gain: float, stop: float
) -> bool:
    """Exchange channels in place until the rounds end or gain too little; return whether time ran out."""
    gains: list[float] = []
    while len(gains) < rounds and (len(gains) < _PATIENCE_ROUNDS or sum(gains[-_PATIENCE_ROUNDS:]) > min_gain):
        gains.append(_exchange(groups, scores, pattern, generator))
        if time.monotonic() > stop:
            return True
    return False


def _sorted(groups: Tensor) -> Tensor:
    """The order (C,) of the groups (groups, M). Sorting keeps it close to the original order."""
    groups = groups.sort(dim=1).values
    return groups[groups[:, 0].argsort()].flatten()


def _exchange(groups: Tensor, scores: Tensor, pattern: NM, generator: torch.Generator) -> float:
    """Reassign one channel of each group (groups, M) in place; return by how much the loss falls."""
    from scipy.optimize import linear_sum_assignment  # slow to import

    slot = torch.randint(pattern.m, (len(groups), 1), generator=generator)
    taken = groups.gather(1, slot).flatten()  # (groups,)
    stayed = groups[torch.arange(pattern.m) != slot].reshape(len(groups), -1).to(scores.device)  # (groups, M - 1)
    # t of every group and row: (groups, rows)
    thresholds = _smallest([scores[channels] for channels in stayed.T], pattern.m - pattern.n)[-1]
    # L1 distances (groups, groups): channel i taken, group j joined
    distance = torch.cdist(scores[taken.to(scores.device)], thresholds, p=1).double().cpu().numpy()
    channel, group = linear_sum_assignment(distance, maximize=True)
    gain = float(distance[channel, group].sum() - distance.trace()) / 2
    groups.scatter_(1, slot, taken[torch.from_numpy(group).argsort()][:, None])
    return gain


def _smallest(slots: Sequence[Tensor], count: int) -> list[Tensor]:
    """The ``count`` smallest of several tensors of one shape, elementwise, in ascending order."""
    slots = list(slots)
    for done in range(count):
        for upper in range(len(slots) - 1, done, -1):
            lower, slot = slots[upper - 1], slots[upper]
            slots[upper - 1], slots[upper] = torch.minimum(lower, slot), torch.maximum(lower, slot)
    return slots[:count]
