"""The search for an order of channels against brute force and the classic pairwise search."""

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sparsegpt_core.errors import InputError, NumericsError
from sparsegpt_core.patterns import NM
from sparsegpt_core.permutation.order_search import order_loss, search_order


def saliency(rows, channels, seed=0, spread=0.0):
    """w² with channels of different scales, as in a trained layer."""
    generator = torch.Generator().manual_seed(seed)
    scale = torch.exp(spread * torch.randn(channels, generator=generator))
    return (torch.randn(rows, channels, generator=generator) * scale) ** 2


def reference_loss(matrix, order, pattern):
    groups = matrix.double()[:, order].reshape(len(matrix), -1, pattern.m)
    return float(groups.sort(dim=-1).values[..., : pattern.m - pattern.n].sum())


def pairwise(matrix, pattern):
    """The classic search: split the 8 channels of any two groups in the best of 35 ways, until no pair gains."""
    order = list(range(matrix.shape[1]))
    gained = True
    while gained:
        gained = False
        for a, b in itertools.combinations(range(0, len(order), 4), 2):
            channels = order[a : a + 4] + order[b : b + 4]
            splits = [(0, *rest) for rest in itertools.combinations(range(1, 8), 3)]
            ways = [[channels[i] for i in (*left, *(set(range(8)) - set(left)))] for left in splits]
            losses = [reference_loss(matrix, way, pattern) for way in ways]
            best = min(range(35), key=losses.__getitem__)
            if losses[best] < losses[0] * (1 - 1e-6):
                order[a : a + 4], order[b : b + 4] = ways[best][:4], ways[best][4:]
                gained = True
    return reference_loss(matrix, order, pattern)


@pytest.mark.parametrize("pattern", [NM(2, 4), NM(1, 4), NM(3, 4)])
@pytest.mark.parametrize("seed", [0, 1])
def test_eight_channels_reach_the_best_of_all_orders(pattern, seed):
    matrix = saliency(24, 8, seed, spread=1.0)
    splits = [(0, *rest) for rest in itertools.combinations(range(1, 8), 3)]
    best = min(reference_loss(matrix, (*left, *(set(range(8)) - set(left))), pattern) for left in splits)
    assert search_order([matrix], pattern).after == pytest.approx(best, rel=1e-6)


@pytest.mark.parametrize("spread", [0.0, 1.0])
def test_as_good_as_the_pairwise_search(spread):
    matrix = saliency(32, 16, spread=spread)
    found = search_order([matrix], NM(2, 4))
    assert found.after <= 1.01 * pairwise(matrix, NM(2, 4))
    assert found.after < 0.95 * found.before


@settings(max_examples=40, deadline=None)
@given(
    groups=st.integers(1, 5),
    n=st.integers(1, 4),
    more=st.integers(1, 3),
    rows=st.lists(st.integers(1, 9), min_size=1, max_size=3),
    seed=st.integers(0, 99),
)
def test_any_pattern_yields_an_order_with_the_losses_it_reports(groups, n, more, rows, seed):
    pattern = NM(n, n + more)
    matrices = [saliency(count, groups * pattern.m, seed + index) for index, count in enumerate(rows)]
    found = search_order(matrices, pattern, seed=seed)
    both = torch.cat(matrices)
    assert found.order.sort().values.tolist() == list(range(both.shape[1]))
    assert found.before == pytest.approx(reference_loss(both, torch.arange(both.shape[1]), pattern), rel=1e-9)
    assert found.after == pytest.approx(reference_loss(both, found.order, pattern), rel=1e-9)
    assert found.after <= found.before
    assert not found.cut_off


def test_worthless_channels_are_spread_over_the_groups():
    """Half the channels have saliency 0: the best order loses nothing, the given one half of the rest."""
    matrix = torch.ones(3, 32)
    matrix[:, 16:] = 0
    found = search_order([matrix], NM(2, 4))
    assert found.before == 3 * 8
    assert found.after == 0


def test_a_single_group_keeps_its_order():
    found = search_order([saliency(5, 4)], NM(2, 4))
    assert found.order.tolist() == [0, 1, 2, 3]


def test_an_optimal_order_is_kept():
    found = search_order([torch.ones(5, 16)], NM(2, 4))
    assert found.order.tolist() == list(range(16))


def test_the_order_depends_on_the_seed_and_not_on_threads():
    matrix = saliency(200, 64, spread=1.0)
    threads, orders = torch.get_num_threads(), []
    try:
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            orders.append(search_order([matrix], NM(2, 4), seed=3))
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(orders[0].order, other.order) and orders[0].after == other.after for other in orders)


def test_a_search_without_time_is_reported_as_cut_off():
    found = search_order([saliency(9, 32)], NM(2, 4), seconds=0)
    assert found.cut_off
    assert found.after <= found.before


def test_bad_saliencies_are_refused():
    with pytest.raises(InputError, match="cannot share an order"):
        search_order([torch.ones(2, 8), torch.ones(2, 12)], NM(2, 4))
    with pytest.raises(InputError, match="groups of 4"):
        search_order([torch.ones(2, 6)], NM(2, 4))
    with pytest.raises(NumericsError):
        search_order([torch.full((2, 8), float("nan"))], NM(2, 4))


def test_loss_of_an_order():
    scores = torch.tensor([[1.0], [5], [2], [3], [10], [20], [30], [40]])
    assert order_loss(scores, torch.arange(8), NM(2, 4)) == 1 + 2 + 10 + 20
    assert order_loss(scores, torch.arange(8), NM(1, 4)) == 1 + 2 + 3 + 10 + 20 + 30
