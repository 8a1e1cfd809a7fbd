import itertools

import pytest
import torch

from sparsegpt_core.linalg import DenseHessian
from sparsegpt_core.patterns import NM, find_violations
from sparsegpt_core.solvers.refit import refit_weights
from tests.support.layers import layer
from tests.support.oracle import greedy_obs, image_layer, relative_error


def damped_layer(rows, columns, seed=0):
    weight, hessian = layer(rows, columns, seed=seed)
    return weight, hessian + 0.01 * hessian.diagonal().mean() * torch.eye(columns, dtype=hessian.dtype)


def losses(sparse, weight, damped):
    change = sparse - weight
    return ((change @ damped) * change).sum(dim=1)


def best_of_all_masks(weight, damped, pattern):
    """Every row's smallest loss over all masks that the pattern allows, each refitted: (K,)."""
    groups = range(0, weight.shape[1], pattern.m)
    choices = [itertools.combinations(range(first, first + pattern.m), pattern.n) for first in groups]
    best = torch.full((len(weight),), torch.inf, dtype=weight.dtype)
    for kept in itertools.product(*choices):
        index = torch.tensor(sum(kept, ()))
        sparse = torch.zeros_like(weight)
        sparse[:, index] = torch.linalg.solve(damped[index][:, index], (weight @ damped)[:, index].T).T
        best = torch.minimum(best, losses(sparse, weight, damped))
    return best


@pytest.mark.parametrize("pattern", [NM(2, 4), NM(1, 4), NM(1, 2), NM(2, 3)])
def test_near_the_best_of_all_masks(pattern):
    weight, damped = damped_layer(40, 12)
    sparse = greedy_obs(weight, damped, pattern)
    best, found = best_of_all_masks(weight, damped, pattern), losses(sparse, weight, damped)
    assert find_violations(sparse.numpy(), pattern, axis=1).count == 0
    assert (found >= best * (1 - 1e-9)).all()
    assert float(found.sum()) <= 1.6 * float(best.sum())


def test_a_group_of_two_is_solved_exactly():
    weight, damped = damped_layer(40, 2)
    sparse = greedy_obs(weight, damped, NM(1, 2))
    torch.testing.assert_close(losses(sparse, weight, damped), best_of_all_masks(weight, damped, NM(1, 2)))


def test_kept_weights_are_the_optimum_on_the_mask():
    weight, damped = damped_layer(10, 40)
    sparse = greedy_obs(weight, damped, NM(2, 4))
    shift = torch.zeros(40, dtype=damped.dtype)
    fitted, _ = refit_weights(sparse, weight @ damped, DenseHessian(damped), shift, direct=True)
    torch.testing.assert_close(sparse, fitted, rtol=1e-8, atol=1e-10)


def test_the_image_layer_is_reproducible_and_correlated():
    weight, hessian = image_layer(rows=8, channels=4, images=8)
    assert torch.equal(hessian, image_layer(rows=8, channels=4, images=8)[1])
    assert weight.shape == (8, 36)
    scale = hessian.diagonal().sqrt()
    correlation = (hessian / scale / scale[:, None]).reshape(9, 4, 9, 4)
    neighbours = correlation[3, :, 4, :].diagonal()  # the same channel, one position on
    assert float(neighbours.min()) > 0.5
    assert relative_error(weight, weight, hessian) == 0
    assert relative_error(torch.zeros_like(weight), weight, hessian) == pytest.approx(1)
