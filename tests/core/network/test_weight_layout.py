import warnings

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from sparsegpt_core.network import input_columns, matrix_to_weight, weight_to_matrix

CONVS = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}


def test_input_channel_runs_fastest():
    weight = torch.arange(2 * 4 * 3 * 5, dtype=torch.float32).reshape(2, 4, 3, 5)
    matrix = weight_to_matrix(weight)
    for k, c, r, s in [(0, 0, 0, 0), (1, 3, 2, 4), (1, 2, 0, 3), (0, 1, 1, 0)]:
        assert matrix[k, (r * 5 + s) * 4 + c] == weight[k, c, r, s]


@pytest.mark.parametrize("shape", [(3, 8), (3, 8, 5), (3, 8, 3, 2), (3, 8, 1, 1), (2, 4, 2, 3, 2)])
def test_matrix_to_weight_undoes_weight_to_matrix(shape):
    weight = torch.randn(shape)
    back = matrix_to_weight(weight_to_matrix(weight), shape)
    assert torch.equal(back, weight)
    assert back.is_contiguous()


@given(st.data())
@settings(max_examples=80, deadline=None)
def test_matrix_times_columns_is_the_convolution(data):
    """For every combination of dimensions, kernel, stride, padding (mode) and dilation."""
    dims = data.draw(st.integers(1, 3))
    small = st.lists(st.integers(1, 3), min_size=dims, max_size=dims).map(tuple)
    kernel, stride, dilation = data.draw(small), data.draw(small), data.draw(small)
    mode = data.draw(st.sampled_from(["zeros", "reflect", "replicate", "circular"]))
    padding = data.draw(st.sampled_from(["same", "valid", *range(3)]))
    if padding == "same":
        stride = (1,) * dims
    layer = CONVS[dims](
        4, 6, kernel, stride, padding=padding, dilation=dilation, padding_mode=mode, bias=False, dtype=torch.float64
    )
    size = data.draw(st.integers(8, 10))
    x = torch.randn(2, 4, *[size] * dims, dtype=torch.float64)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Using padding='same' with even kernel lengths")
        expected = layer(x)
    columns = input_columns(layer, x)
    assert columns.shape == (expected.numel() // 6, layer.weight[0].numel())
    actual = columns @ weight_to_matrix(layer.weight).T
    torch.testing.assert_close(actual, expected.movedim(1, -1).reshape(-1, 6))


@pytest.mark.parametrize("leading", [(), (5,), (5, 3), (2, 3, 4)])
def test_linear_columns_flatten_leading_dimensions(leading):
    layer = nn.Linear(8, 3, bias=False)
    x = torch.randn(*leading, 8)
    torch.testing.assert_close(input_columns(layer, x) @ layer.weight.T, layer(x).reshape(-1, 3))
