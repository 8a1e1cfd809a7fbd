"""Matched outputs against NumPy on the outputs themselves."""

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from sparsegpt_core.solvers import match_outputs
from sparsegpt_core.statistics import OutputMoments


def _moments(dense, sparse):
    means = [dense.mean(0), (dense**2).mean(0), sparse.mean(0), (sparse**2).mean(0), (dense * sparse).mean(0)]
    return OutputMoments(*map(torch.from_numpy, means), positions=len(dense))


@given(
    seed=st.integers(0, 1000),
    gain=st.floats(0.6, 3.0),
    offset=st.floats(-2, 2),
    noise=st.floats(0.0, 1.0),
    shifts=st.booleans(),
)
def test_mean_and_variance_are_those_of_the_dense_network(seed, gain, offset, noise, shifts):
    random = np.random.default_rng(seed)
    dense = random.normal([0, 1, -2], size=(200, 3))  # (positions, K)
    sparse = dense / gain + offset + noise * random.normal(size=dense.shape)
    match = match_outputs(_moments(dense, sparse), shifts=shifts, variance=True)
    growth = match.growth.numpy()
    found = growth * sparse + (match.shift.numpy() if shifts else 0)
    free = growth < 2
    if shifts:
        np.testing.assert_allclose(found.mean(0), dense.mean(0), atol=1e-9)
        np.testing.assert_allclose(found.std(0)[free], dense.std(0)[free])
    else:
        assert match.shift is None
        np.testing.assert_allclose((found**2).mean(0)[free], (dense**2).mean(0)[free])
    assert growth.max() <= 2
    energy = (dense**2).sum()
    np.testing.assert_allclose(match.relative_error, ((dense - found) ** 2).sum() / energy, atol=1e-9)
    best = dense.mean(0) - sparse.mean(0) if shifts else 0
    np.testing.assert_allclose(match.inherited_error, ((dense - sparse - best) ** 2).sum() / energy, atol=1e-9)


def test_constant_channels_and_those_without_variance_to_keep_are_not_scaled():
    dense, sparse = np.array([[1.0, 3.0]] * 4), np.array([[2.0, 0.0]] * 4)
    match = match_outputs(_moments(dense, sparse), shifts=True, variance=True)
    assert match.growth.tolist() == [1, 1]
    assert match.shift.tolist() == [-1, 3]
    assert match_outputs(_moments(dense, sparse), shifts=True, variance=False).growth.tolist() == [1, 1]


def test_outputs_that_are_zero_have_no_error():
    zeros = np.zeros((4, 2))
    match = match_outputs(_moments(zeros, zeros), shifts=True, variance=True)
    assert (match.relative_error, match.inherited_error) == (0, 0)
