import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sparsegpt_core.errors import NumericsError
from sparsegpt_core.linalg import DenseHessian
from sparsegpt_core.patterns import NM, Unstructured
from sparsegpt_core.solvers import keep_mask
from sparsegpt_core.solvers.refit import refit_weights
from tests.support.layers import layer


def problem(rows, columns, pattern, seed=0, dtype=torch.float64, positions=200):
    """A start on a mask, a target, W* H_λ, H, and what damps it."""
    target, hessian = layer(rows, columns, positions, seed)
    shift = (0.01 * hessian.diagonal().mean()).expand(columns).clone()
    start = target * keep_mask(target.abs(), pattern)
    product = target @ (hessian + shift.diag())
    return [tensor.to(dtype) for tensor in (start, target, product, hessian, shift)]


def row_by_row(start, product, hessian, shift):
    """Every row's system by itself."""
    damped = hessian + shift.diag()
    best = torch.zeros_like(start)
    for row, goal, out in zip(start, product, best, strict=True):
        kept = row.nonzero().flatten()
        out[kept] = torch.linalg.solve(damped[kept][:, kept], goal[kept])
    return best


def losses(weight, target, hessian, shift):
    """(ŵ − w*) H_λ (ŵ − w*)ᵀ of every row, in float64."""
    difference, damped = (weight - target).double(), (hessian + shift.diag()).double()
    return ((difference @ damped) * difference).sum(dim=1)


@pytest.mark.parametrize("pattern", [NM(2, 4), NM(1, 4), Unstructured(0.6)])
@pytest.mark.parametrize("direct", [True, False])
def test_equals_each_rows_own_solution(pattern, direct):
    start, _, product, hessian, shift = problem(7, 24, pattern)
    actual, residual = refit_weights(
        start, product, DenseHessian(hessian), shift, direct=direct, iterations=500, tolerance=1e-12
    )
    torch.testing.assert_close(actual, row_by_row(start, product, hessian, shift), rtol=1e-7, atol=1e-8)
    torch.testing.assert_close(residual, product - actual @ (hessian + shift.diag()), rtol=1e-7, atol=1e-6)


@pytest.mark.parametrize("pattern", [NM(2, 4), Unstructured(0.5)])
def test_both_ways_agree_in_single_precision(pattern):
    start, _, product, hessian, shift = problem(16, 96, pattern, dtype=torch.float32, positions=2000)
    exact, _ = refit_weights(start, product, DenseHessian(hessian), shift, direct=True)
    iterated, _ = refit_weights(
        start, product, DenseHessian(hessian), shift, direct=False, iterations=500, tolerance=1e-6
    )
    assert float((iterated - exact).norm() / exact.norm()) < 1e-4


@given(st.data())
@settings(max_examples=40, deadline=None)
def test_no_row_gets_worse_and_zeros_stay(data):
    pattern = data.draw(st.sampled_from([NM(2, 4), NM(1, 2), Unstructured(0.3), Unstructured(0.9)]))
    shape = data.draw(st.integers(1, 6)), 4 * data.draw(st.integers(1, 10))
    start, target, product, hessian, shift = problem(
        *shape, pattern, data.draw(st.integers(0, 99)), torch.float32, data.draw(st.integers(1, 50))
    )
    direct, iterations = data.draw(st.booleans()), data.draw(st.integers(0, 20))
    fitted, _ = refit_weights(start, product, DenseHessian(hessian), shift, direct=direct, iterations=iterations)
    assert (fitted[start == 0] == 0).all()
    before, after = losses(start, target, hessian, shift), losses(fitted, target, hessian, shift)
    assert (after <= before * (1 + 1e-4) + 1e-6).all()


@pytest.mark.parametrize("direct", [True, False])
def test_rows_without_a_weight_or_without_an_error(direct):
    start, _, product, hessian, shift = problem(4, 12, NM(2, 4))
    start[1] = 0
    start[2] = row_by_row(start, product, hessian, shift)[2]
    product[3] = start[3] @ (hessian + shift.diag())
    fitted, _ = refit_weights(start, product, DenseHessian(hessian), shift, direct=direct)
    assert (fitted[1] == 0).all()
    torch.testing.assert_close(fitted[2:], start[2:])


@pytest.mark.parametrize("direct", [True, False])
def test_a_mask_that_keeps_nothing(direct):
    start, _, product, hessian, shift = problem(4, 12, NM(2, 4))
    fitted, residual = refit_weights(torch.zeros_like(start), product, DenseHessian(hessian), shift, direct=direct)
    assert (fitted == 0).all()
    torch.testing.assert_close(residual, product)


def test_rows_in_pieces_change_nothing(monkeypatch):
    start, _, product, hessian, shift = problem(9, 16, Unstructured(0.5))
    whole, _ = refit_weights(start, product, DenseHessian(hessian), shift)
    monkeypatch.setattr("sparsegpt_core.solvers.refit._MAX_SYSTEM_BYTES", 1)
    torch.testing.assert_close(refit_weights(start, product, DenseHessian(hessian), shift)[0], whole)


def test_a_system_that_is_not_positive_definite_names_the_layer():
    start, _, product, hessian, shift = problem(2, 8, NM(2, 4))
    with pytest.raises(NumericsError, match="conv7"):
        refit_weights(start, product, DenseHessian(-hessian), shift, "conv7")


def test_the_input_is_not_changed():
    start, _, product, hessian, shift = problem(3, 80, NM(2, 4))
    copies = [tensor.clone() for tensor in (start, product, hessian, shift)]
    refit_weights(start, product, DenseHessian(hessian), shift)
    assert all(torch.equal(a, b) for a, b in zip(copies, (start, product, hessian, shift), strict=True))
