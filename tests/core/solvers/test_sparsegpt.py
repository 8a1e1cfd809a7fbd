import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sparsegpt_core.linalg import DenseHessian
from sparsegpt_core.patterns import NM, Unstructured, find_violations
from sparsegpt_core.solvers import magnitude
from sparsegpt_core.solvers.exact_groups import prune_with_exact_groups
from sparsegpt_core.solvers.sparsegpt import prune_with_sparsegpt
from tests.support.layers import layer
from tests.support.strategies import patterns


def explicit_obs(weight, hessian, pattern, damping=0.01):
    """OBS with the inverse Hessian of the columns left computed again at every column."""
    weight = weight.clone()
    damped = hessian + damping * hessian.diagonal().mean() * torch.eye(len(hessian), dtype=hessian.dtype)
    inverses = [damped[q:, q:].inverse() for q in range(len(damped))]
    for first in range(0, weight.shape[1], pattern.m):
        for row in weight:
            scores = [float(row[q] ** 2 / inverses[q][0, 0]) for q in range(first, first + pattern.m)]
            order = sorted(range(pattern.m), key=lambda i: -scores[i])
            for q in (first + i for i in sorted(order[pattern.n :])):
                # The columns before q are frozen. Remove w_q, and move the columns after it.
                row[q:] -= row[q].clone() / inverses[q][0, 0] * inverses[q][0]
                row[q] = 0
    return weight


@pytest.mark.parametrize("pattern", [NM(2, 4), NM(1, 4), NM(4, 8), NM(2, 3)])
@pytest.mark.parametrize("block_size", [1, 5, 128])
def test_equals_obs_with_explicit_inverses(pattern, block_size):
    weight, hessian = layer(5, 24)
    upper = DenseHessian(hessian).factor().upper
    actual = prune_with_sparsegpt(weight, upper, pattern, block_size)
    torch.testing.assert_close(actual, explicit_obs(weight, hessian, pattern), rtol=1e-9, atol=1e-9)


def test_one_weight_removed_is_the_constrained_optimum():
    """With one group of two, the update must solve the least-squares problem under w_q = 0."""
    weight, hessian = layer(1, 2)
    pruned = prune_with_sparsegpt(weight, DenseHessian(hessian).factor(damping=0.0).upper, NM(1, 2))
    if pruned[0, 0] == 0:  # only columns after the removed one can move
        best = weight[0, 1] + weight[0, 0] * hessian[0, 1] / hessian[1, 1]
        assert float(pruned[0, 1]) == pytest.approx(float(best))
    else:
        assert float(pruned[0, 0]) == float(weight[0, 0])


@pytest.mark.parametrize("prune", [prune_with_sparsegpt, prune_with_exact_groups])
@given(st.data())
@settings(max_examples=40, deadline=None)
def test_the_pattern_is_never_violated(prune, data):
    pattern = data.draw(patterns)
    rows, groups = data.draw(st.integers(1, 6)), data.draw(st.integers(1, 6))
    weight, hessian = layer(rows, groups * pattern.m, data.draw(st.integers(1, 50)), data.draw(st.integers(0, 99)))
    pruned = prune(weight, DenseHessian(hessian).factor().upper, pattern, data.draw(st.integers(1, 20)))
    assert find_violations(pruned.numpy(), pattern, axis=1).count == 0
    assert torch.isfinite(pruned).all()


@pytest.mark.parametrize("fraction", [0.3, 0.5, 0.9])
def test_unstructured_reaches_its_fraction(fraction):
    weight, hessian = layer(16, 64)
    pruned = prune_with_sparsegpt(weight, DenseHessian(hessian).factor().upper, Unstructured(fraction), block_size=16)
    assert float((pruned == 0).double().mean()) == pytest.approx(fraction, abs=0.005)


def test_a_matrix_that_obeys_already_is_left_alone():
    weight, hessian = layer(4, 8)
    sparse = magnitude(weight, NM(2, 4))
    assert torch.equal(prune_with_sparsegpt(sparse, DenseHessian(hessian).factor().upper, NM(2, 4)), sparse)


def test_magnitude_of_a_known_matrix():
    weight = torch.tensor([[1.0, -4.0, 3.0, 2.0, -0.5, 0.0, 0.25, 9.0]])
    assert magnitude(weight, NM(2, 4)).tolist() == [[0, -4, 3, 0, -0.5, 0, 0, 9]]


def test_unstructured_is_obs_on_the_mask_of_each_block():
    """The mask of a block is chosen from its values at its start; the updates are the exact ones."""
    weight, hessian = layer(6, 60)
    pruned = prune_with_sparsegpt(weight, DenseHessian(hessian).factor().upper, Unstructured(0.5), block_size=40)
    damped = hessian + 0.01 * hessian.diagonal().mean() * torch.eye(60, dtype=hessian.dtype)
    expected = weight.clone()
    for q in range(60):
        inverse = damped[q:, q:].inverse()
        errors = expected[:, q] / inverse[0, 0] * (pruned[:, q] == 0)
        expected[:, q:] -= errors[:, None] * inverse[0]
    torch.testing.assert_close(pruned, expected, rtol=1e-9, atol=1e-9)
