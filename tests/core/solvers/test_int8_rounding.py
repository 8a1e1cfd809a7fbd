import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sparsegpt_core.linalg import DenseHessian
from sparsegpt_core.patterns import NM, Unstructured, find_violations
from sparsegpt_core.solvers import grid_scales
from sparsegpt_core.solvers.int8_rounding import quantise
from sparsegpt_core.solvers.refit import refit_weights
from sparsegpt_core.solvers.sparsegpt import prune_with_sparsegpt
from tests.support.layers import layer
from tests.support.oracle import image_layer, relative_error

TWO_OF_FOUR = NM(2, 4)


def refitted(weight, hessian, pattern=TWO_OF_FOUR):
    factor = DenseHessian(hessian).factor()
    goal = weight @ hessian + weight * factor.shift
    return refit_weights(
        prune_with_sparsegpt(weight, factor.upper, pattern), goal, DenseHessian(hessian), factor.shift
    )[0], factor


def to_nearest(weight, scales, bits):
    limit = 2 ** (bits - 1) - 1
    return (weight / scales[:, None]).round().clamp(-limit, limit) * scales[:, None]


def explicit_obq(sparse, damped, scales, limit):
    """Row by row, with the inverse Hessian of the columns left computed again at every column."""
    weight, kept = sparse.clone(), sparse != 0
    for q in range(weight.shape[1]):
        inverse = damped[q:, q:].inverse()
        for row, scale, own in zip(weight, scales, kept, strict=True):
            rounded = (row[q] / scale).round().clamp(-limit, limit) * scale * own[q]
            row[q + 1 :] -= (row[q] - rounded) / inverse[0, 0] * inverse[0, 1:]
            row[q] = rounded
    return weight


@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("block_size", [1, 7, 128])
def test_equals_obq_with_explicit_inverses(bits, block_size):
    weight, hessian = layer(5, 24)
    sparse, factor = refitted(weight, hessian)
    scales = grid_scales(sparse, hessian.diagonal(), bits)
    expected = explicit_obq(sparse, hessian + factor.shift.diag(), scales, 2 ** (bits - 1) - 1)
    actual = quantise(sparse, factor.upper, scales, bits, block_size)
    torch.testing.assert_close(actual, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("bits", [8, 4])
def test_beats_rounding_to_nearest(bits):
    weight, hessian = image_layer()
    sparse, factor = refitted(weight, hessian)
    scales = grid_scales(sparse, hessian.diagonal() + factor.shift, bits)
    joint = quantise(sparse, factor.upper, scales, bits)
    # The error that rounding adds to that of pruning.
    before = relative_error(sparse, weight, hessian)
    added = relative_error(joint, weight, hessian) - before
    assert added < 0.8 * (relative_error(to_nearest(sparse, scales, bits), weight, hessian) - before)


@given(st.data())
@settings(max_examples=30, deadline=None)
def test_on_the_grid_and_within_the_mask(data):
    pattern = data.draw(st.sampled_from([NM(2, 4), NM(1, 4), Unstructured(0.6)]))
    bits = data.draw(st.integers(2, 8))
    weight, hessian = layer(data.draw(st.integers(1, 6)), 4 * data.draw(st.integers(1, 6)), seed=bits)
    sparse, factor = refitted(weight.float(), hessian.float(), pattern)
    scales = grid_scales(sparse, hessian.diagonal().float(), bits)
    joint = quantise(sparse, factor.upper, scales, bits, data.draw(st.integers(1, 20)))
    int8_weight = (joint / scales[:, None]).round()
    assert torch.equal(int8_weight * scales[:, None], joint)
    assert float(int8_weight.abs().max()) <= 2 ** (bits - 1) - 1
    assert (joint[sparse == 0] == 0).all()
    if isinstance(pattern, NM):
        assert find_violations(joint.numpy(), pattern, axis=1).count == 0


def test_scales_are_no_worse_than_the_widest_and_saturate_where_it_pays():
    generator = torch.Generator().manual_seed(0)
    weight, importance = torch.randn(6, 400, generator=generator), torch.rand(400, generator=generator)
    for bits, gain in ((4, 0.9), (8, 1)):
        widest = weight.abs().amax(dim=1) / (2 ** (bits - 1) - 1)
        scales = grid_scales(weight, importance, bits)
        chosen, plain = ((to_nearest(weight, s, bits) - weight).square() @ importance for s in (scales, widest))
        assert (scales <= widest).all()
        assert (chosen <= gain * plain).all()


def test_a_row_of_zeros_has_a_scale_too():
    assert grid_scales(torch.zeros(2, 4), torch.ones(4)).tolist() == [1, 1]


def test_the_input_is_not_changed():
    weight, hessian = layer(3, 8)
    sparse, factor = refitted(weight, hessian)
    copy = sparse.clone()
    quantise(sparse, factor.upper, grid_scales(sparse, hessian.diagonal()))
    assert torch.equal(sparse, copy)
