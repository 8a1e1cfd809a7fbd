"""Sums over a layer's outputs against NumPy."""

import numpy as np
import pytest
import torch
from torch import nn

from sparsegpt_core.errors import InputError, NumericsError
from sparsegpt_core.statistics import OutputStatistics


@pytest.mark.parametrize(
    "layer",
    [nn.Conv2d(6, 6, 3, groups=6, padding=1), nn.Conv1d(4, 8, 3, groups=2, stride=2, bias=False), nn.Linear(5, 3)],
)
def test_moments_are_those_of_all_outputs_without_bias(layer):
    torch.manual_seed(0)
    shape = {nn.Conv2d: (6, 7, 7), nn.Conv1d: (4, 11), nn.Linear: (5,)}[type(layer)]
    x, other = torch.randn(10, *shape), torch.randn(10, *shape)
    with torch.no_grad():
        y = layer(other)
        statistics = OutputStatistics(layer)
        statistics.add_all([(x[:4], y[:4], 0), (x[4:], y[4:], 4)])
        moments = statistics.moments()
        bias = 0 if layer.bias is None else layer.bias.reshape(-1, *[1] * (y.ndim - 2))
        dense, sparse = (
            (each - bias).double().movedim(1, -1).flatten(0, -2).numpy() for each in (y, layer(x))
        )  # (positions, K)
    assert moments.positions == len(dense)
    expected = {
        "mean": dense.mean(0),
        "energy": (dense**2).mean(0),
        "sparse_mean": sparse.mean(0),
        "sparse_energy": (sparse**2).mean(0),
        "overlap": (dense * sparse).mean(0),
    }
    for name, values in expected.items():
        np.testing.assert_allclose(getattr(moments, name).numpy(), values, rtol=1e-4, atol=1e-5)
    centred = moments.centred()
    np.testing.assert_allclose(centred.energy.numpy(), dense.var(0), rtol=1e-3)
    covariance = ((dense - dense.mean(0)) * (sparse - sparse.mean(0))).mean(0)
    np.testing.assert_allclose(centred.overlap.numpy(), covariance, rtol=1e-2, atol=1e-4)


def test_no_input_and_nan_are_errors_that_name_the_layer():
    layer = nn.Linear(2, 2)
    with pytest.raises(InputError, match="conv: "):
        OutputStatistics(layer).moments("conv")
    statistics, x = OutputStatistics(layer), torch.full((1, 2), torch.nan)
    statistics.add_all([(x, x, 0)])
    with pytest.raises(NumericsError, match="conv: its inputs contain NaN"):
        statistics.moments("conv")
