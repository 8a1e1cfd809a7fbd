import itertools

import pytest
import torch

from sparsegpt_core.errors import InputError
from sparsegpt_core.linalg import DenseHessian
from sparsegpt_core.patterns import NM
from sparsegpt_core.solvers import magnitude
from sparsegpt_core.solvers.exact_groups import prune_with_exact_groups
from sparsegpt_core.solvers.sparsegpt import prune_with_sparsegpt
from tests.support.layers import layer
from tests.support.oracle import image_layer, relative_error


def explicit(weight, damped, pattern):
    """Every choice of every group tried: constrained least squares over the columns that are still free."""
    weight = weight.clone()
    for first in range(0, weight.shape[1], pattern.m):
        inverse = damped[first:, first:].inverse()
        for row in weight:
            best = None
            for chosen in itertools.combinations(range(pattern.m), pattern.m - pattern.n):
                index = torch.tensor(chosen)
                multipliers = torch.linalg.solve(inverse[index][:, index], row[first + index])
                cost = float(row[first + index] @ multipliers)
                if best is None or cost < best[0]:
                    best = cost, index, multipliers @ inverse[index]
            row[first:] -= best[2]
            row[first + best[1]] = 0
    return weight


@pytest.mark.parametrize("pattern", [NM(2, 4), NM(1, 4), NM(4, 8), NM(2, 3)])
@pytest.mark.parametrize("block_size", [1, 5, 128])
def test_equals_trying_every_choice(pattern, block_size):
    weight, hessian = layer(5, 24)
    factor = DenseHessian(hessian).factor()
    actual = prune_with_exact_groups(weight, factor.upper, pattern, block_size)
    expected = explicit(weight, hessian + factor.shift.diag(), pattern)
    torch.testing.assert_close(actual, expected, rtol=1e-8, atol=1e-8)


def test_one_group_is_solved_exactly():
    weight, hessian = layer(20, 4)
    factor = DenseHessian(hessian).factor(damping=0.0)
    found = prune_with_exact_groups(weight, factor.upper, NM(2, 4)) - weight
    best = torch.full((20,), torch.inf, dtype=weight.dtype)
    for kept in itertools.combinations(range(4), 2):
        index = torch.tensor(kept)
        sparse = torch.zeros_like(weight)
        sparse[:, index] = torch.linalg.solve(hessian[index][:, index], (weight @ hessian)[:, index].T).T
        best = torch.minimum(best, (((sparse - weight) @ hessian) * (sparse - weight)).sum(dim=1))
    torch.testing.assert_close(((found @ hessian) * found).sum(dim=1), best)


def test_beats_sparsegpt_on_images():
    weight, hessian = image_layer()
    upper = DenseHessian(hessian).factor().upper
    exact, greedy = (prune(weight, upper, NM(2, 4)) for prune in (prune_with_exact_groups, prune_with_sparsegpt))
    assert relative_error(exact, weight, hessian) < 0.97 * relative_error(greedy, weight, hessian)


def test_a_matrix_that_obeys_already_is_left_alone():
    weight, hessian = layer(4, 8)
    sparse = magnitude(weight, NM(2, 4))
    assert torch.equal(prune_with_exact_groups(sparse, DenseHessian(hessian).factor().upper, NM(2, 4)), sparse)


def test_too_many_choices_are_refused():
    weight, hessian = layer(2, 32)
    with pytest.raises(InputError, match="8:16"):
        prune_with_exact_groups(weight, DenseHessian(hessian).factor().upper, NM(8, 16))
