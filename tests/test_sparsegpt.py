import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sparsegpt_core.errors import InputError
from sparsegpt_core.hessian import inverse_factor, quadratic_error
from sparsegpt_core.magnitude import magnitude
from sparsegpt_core.patterns import NM, Unstructured, find_violations
from sparsegpt_core.settings import PruneSettings
from sparsegpt_core.solve import solve
from sparsegpt_core.sparsegpt import sparsegpt
from test_patterns import patterns


def layer(rows, columns, positions=200, seed=0):
    """A weight, and the Hessian of correlated inputs."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(positions, columns, generator=generator, dtype=torch.float64)
    x = x @ torch.randn(columns, columns, generator=generator, dtype=torch.float64)
    weight = torch.randn(rows, columns, generator=generator, dtype=torch.float64)
    return weight, x.T @ x / positions


def explicit_obs(weight, hessian, pattern, damping=0.01):
    """OBS with the inverse of the remaining Hessian computed anew at every column."""
    weight = weight.clone()
    damped = hessian + damping * hessian.diagonal().mean() * torch.eye(len(hessian), dtype=hessian.dtype)
    inverses = [damped[q:, q:].inverse() for q in range(len(damped))]
    for first in range(0, weight.shape[1], pattern.m):
        for row in weight:
            scores = [float(row[q] ** 2 / inverses[q][0, 0]) for q in range(first, first + pattern.m)]
            order = sorted(range(pattern.m), key=lambda i: -scores[i])
            for q in (first + i for i in sorted(order[pattern.n :])):
                # Freeze what stands before q, remove w_q, move what stands behind it.
                row[q:] -= row[q].clone() / inverses[q][0, 0] * inverses[q][0]
                row[q] = 0
    return weight


@pytest.mark.parametrize("pattern", [NM(2, 4), NM(1, 4), NM(4, 8), NM(2, 3)])
@pytest.mark.parametrize("block_size", [1, 5, 128])
def test_equals_obs_with_explicit_inverses(pattern, block_size):
    weight, hessian = layer(5, 24)
    upper = inverse_factor(hessian).upper
    actual = sparsegpt(weight, upper, pattern, block_size)
    torch.testing.assert_close(actual, explicit_obs(weight, hessian, pattern), rtol=1e-9, atol=1e-9)


def test_one_weight_removed_is_the_constrained_optimum():
    """With one group of two, the update must solve the least-squares problem under w_q = 0."""
    weight, hessian = layer(1, 2)
    pruned = sparsegpt(weight, inverse_factor(hessian, damping=0.0).upper, NM(1, 2))
    if pruned[0, 0] == 0:  # only columns behind the removed one can move
        best = weight[0, 1] + weight[0, 0] * hessian[0, 1] / hessian[1, 1]
        assert float(pruned[0, 1]) == pytest.approx(float(best))
    else:
        assert float(pruned[0, 0]) == float(weight[0, 0])


@given(st.data())
@settings(max_examples=40, deadline=None)
def test_the_pattern_is_never_violated(data):
    pattern = data.draw(patterns)
    rows, groups = data.draw(st.integers(1, 6)), data.draw(st.integers(1, 6))
    weight, hessian = layer(rows, groups * pattern.m, data.draw(st.integers(1, 50)), data.draw(st.integers(0, 99)))
    pruned = sparsegpt(weight, inverse_factor(hessian).upper, pattern, data.draw(st.integers(1, 20)))
    assert find_violations(pruned.numpy(), pattern, axis=1).count == 0
    assert torch.isfinite(pruned).all()


@pytest.mark.parametrize("fraction", [0.3, 0.5, 0.9])
def test_unstructured_reaches_its_fraction(fraction):
    weight, hessian = layer(16, 64)
    pruned = sparsegpt(weight, inverse_factor(hessian).upper, Unstructured(fraction), block_size=16)
    assert float((pruned == 0).double().mean()) == pytest.approx(fraction, abs=0.005)


def test_beats_magnitude_on_correlated_inputs():
    weight, hessian = layer(32, 64)
    for pattern in (NM(2, 4), NM(1, 4), Unstructured(0.5)):
        solution = solve(weight, hessian, PruneSettings(pattern))
        assert solution.relative_error < solution.magnitude_error


def test_solution_reports_the_true_errors():
    weight, hessian = layer(8, 16)
    solution = solve(weight, hessian, PruneSettings())
    energy = quadratic_error(weight, hessian)
    expected = quadratic_error(magnitude(weight, NM(2, 4)) - weight, hessian) / energy
    assert solution.magnitude_error == pytest.approx(expected)
    assert solution.relative_error == pytest.approx(quadratic_error(solution.matrix - weight, hessian) / energy)


def test_dead_inputs_lose_their_weights():
    weight, hessian = layer(4, 8)
    hessian[2] = 0
    hessian[:, 2] = 0
    solution = solve(weight, hessian, PruneSettings())
    assert (solution.matrix[:, 2] == 0).all()


def test_a_matrix_that_obeys_already_is_left_alone():
    weight, hessian = layer(4, 8)
    sparse = magnitude(weight, NM(2, 4))
    assert torch.equal(sparsegpt(sparse, inverse_factor(hessian).upper, NM(2, 4)), sparse)


def test_magnitude_of_a_known_matrix():
    weight = torch.tensor([[1.0, -4.0, 3.0, 2.0, -0.5, 0.0, 0.25, 9.0]])
    assert magnitude(weight, NM(2, 4)).tolist() == [[0, -4, 3, 0, -0.5, 0, 0, 9]]


@pytest.mark.parametrize("wrong", [{"method": "obs"}, {"damping": -1.0}, {"damping": float("nan")}, {"block_size": 0}])
def test_settings_refuse_nonsense(wrong):
    with pytest.raises(InputError):
        PruneSettings(**wrong)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA GPU here")
def test_cuda_agrees_with_the_cpu():
    weight, hessian = layer(32, 64)
    solution = solve(weight.float().cuda(), hessian.float().cuda(), PruneSettings())
    expected = solve(weight.float(), hessian.float(), PruneSettings())
    assert torch.equal(solution.matrix.cpu() == 0, expected.matrix == 0)
    torch.testing.assert_close(solution.matrix.cpu(), expected.matrix, rtol=1e-3, atol=1e-4)
