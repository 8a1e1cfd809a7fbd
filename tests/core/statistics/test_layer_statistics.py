import warnings

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from sparsegpt_core.errors import InputError, NumericsError
from sparsegpt_core.network import input_columns, output_rows
from sparsegpt_core.statistics import LayerStatistics

CONVS = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}


def reference(layer, pairs):
    """H, cross moment and energy from the unfolded inputs, in float64."""
    x = torch.cat([input_columns(layer, x.double()) for x, _ in pairs])
    y = torch.cat([output_rows(layer, y.double()) for _, y in pairs])
    if layer.bias is not None:
        y = y - layer.bias.detach().double()
    return x.T @ x / len(x), y.T @ x / len(x), float(y.square().sum()) / len(x)


def gather(layer, pairs, **options):
    statistics = LayerStatistics(layer, cross=True, **options)
    first = 0
    for x, y in pairs:
        statistics.add(x, y, first)
        first += len(x)
    return statistics


def assert_equal(moments, expected, tolerance=1e-5):
    hessian, cross, energy = expected
    found = moments.hessian.to_dense()
    assert found.dtype == moments.cross.dtype == torch.float32
    assert torch.equal(found, found.T)
    assert (found - hessian).norm() <= tolerance * hessian.norm()
    # Relative to the size of its terms: the mean of random products is near 0.
    assert (moments.cross - cross).norm() <= tolerance * (energy * hessian.trace()) ** 0.5
    assert moments.energy == pytest.approx(energy, rel=tolerance)


def random_pairs(layer, shape, batches):
    pairs = []
    for size in batches:
        x = torch.randn(size, *shape) + 0.5
        with torch.no_grad(), warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Using padding='same' with even kernel lengths")
            y = layer(x)
        pairs.append((x, y + 0.1 * torch.randn_like(y)))
    return pairs


def smallest(layer):
    """The smallest input of a convolution. Many of its taps see only padding."""
    for reach, padding, extra in zip(
        [d * (k - 1) + 1 for d, k in zip(layer.dilation, layer.kernel_size, strict=True)],
        layer._reversed_padding_repeated_twice[::2][::-1],
        layer._reversed_padding_repeated_twice[1::2][::-1],
        strict=True,
    ):
        # Reflection needs more pixels than padding, circular padding as many.
        yield max(1, reach - padding - extra, 0 if layer.padding_mode == "zeros" else 1 + max(padding, extra))


@given(st.data())
@settings(max_examples=150, deadline=None)
def test_equal_to_im2col(data):
    """For every combination of dimensions, kernel, stride, dilation, padding (mode) and size."""
    dims = data.draw(st.integers(1, 3))
    largest = {1: 7, 2: 5, 3: 3}[dims]
    per_axis = st.lists(st.integers(1, 3), min_size=dims, max_size=dims).map(tuple)
    kernel = data.draw(st.lists(st.integers(1, largest), min_size=dims, max_size=dims).map(tuple))
    stride, dilation = data.draw(per_axis), data.draw(per_axis)
    mode = data.draw(st.sampled_from(["zeros", "zeros", "reflect", "replicate", "circular"]))
    padding = data.draw(st.sampled_from(["same", "valid", *range(3)]))
    if padding == "same":
        stride = (1,) * dims
    channels, rows = data.draw(st.integers(1, 5)), data.draw(st.integers(1, 4))
    layer = CONVS[dims](
        channels, rows, kernel, stride, padding, dilation, bias=data.draw(st.booleans()), padding_mode=mode
    )
    shape = (channels, *(data.draw(st.integers(least, least + 6)) for least in smallest(layer)))
    pairs = random_pairs(layer, shape, data.draw(st.lists(st.integers(1, 3), min_size=1, max_size=3)))
    moments = gather(layer, pairs).moments()
    assert_equal(moments, reference(layer, pairs))
    assert moments.positions == moments.used == sum(y[:, 0].numel() for _, y in pairs)


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (nn.Linear(12, 5), ()),
        (nn.Linear(12, 5), (7,)),
        (nn.Linear(300, 5, bias=False), (3, 4)),
    ],
)
def test_linear_with_leading_dimensions(layer, shape):
    pairs = random_pairs(layer, (*shape, layer.in_features), [2, 3])
    assert_equal(gather(layer, pairs).moments(), reference(layer, pairs))


def test_linear_with_a_single_vector():
    layer = nn.Linear(12, 5)
    statistics = LayerStatistics(layer)
    x = torch.randn(12)
    statistics.add(x)
    torch.testing.assert_close(statistics.moments().hessian.to_dense(), torch.outer(x, x))


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("layer", [nn.Conv2d(64, 8, 3, 1, 1), nn.Conv2d(64, 8, 3, 2, 1), nn.Conv2d(136, 8, 1, 2)])
def test_the_batch_size_does_not_matter(layer, memory_format, monkeypatch):
    """Several pieces in one batch and several batches in one piece, at a size where runs of pixels are multiplied."""
    monkeypatch.setattr("sparsegpt_core.statistics.layer_statistics._PIECE_POSITIONS", 4000)
    pairs = random_pairs(layer, (layer.in_channels, 16, 17), [1, 1, 40, 3, 2])
    pairs = [(x.to(memory_format=memory_format), y) for x, y in pairs]
    assert_equal(gather(layer, pairs).moments(), reference(layer, pairs))


def test_batches_of_different_sizes():
    layer = nn.Conv2d(4, 3, 3, 1, 1)
    pairs = [pair for size in (1, 2, 6, 2) for pair in random_pairs(layer, (4, size, 7), [2])]
    assert_equal(gather(layer, pairs).moments(), reference(layer, pairs))


def test_small_batches_are_not_lost_next_to_large_ones(monkeypatch):
    monkeypatch.setattr("sparsegpt_core.statistics.layer_statistics._PIECE_POSITIONS", 1)
    statistics = LayerStatistics(nn.Linear(1, 1))
    for value in [1e4] + 1000 * [1.0]:
        statistics.add(torch.tensor([[value]]))
    # In float32 every single 1 would be lost next to 1e8.
    assert float(statistics.moments().hessian.to_dense()) == pytest.approx((1e8 + 1000) / 1001, rel=1e-7)


@pytest.mark.parametrize("drawn", [0, 2])
def test_sums_of_two_halves_are_those_of_the_whole(drawn):
    layer = nn.Conv2d(8, 6, 3, padding=1)
    pairs = random_pairs(layer, (8, 20, 20), [2, 3])
    first, second = (LayerStatistics(layer, samples=5, cross=True, positions_per_column=drawn) for _ in range(2))
    first.add(*pairs[0])
    second.add(*pairs[1], 2)
    for mine, theirs in zip(first.sums(), second.sums(), strict=True):
        mine += theirs
    moments = first.moments()
    whole = gather(layer, pairs, samples=5, positions_per_column=drawn).moments()
    torch.testing.assert_close(moments.hessian.to_dense(), whole.hessian.to_dense())
    torch.testing.assert_close(moments.cross, whole.cross)
    assert (moments.positions, moments.used) == (whole.positions, whole.used)
    assert moments.energy == pytest.approx(whole.energy, rel=1e-6)


def test_sums_of_a_device_without_samples_have_the_same_shapes():
    layer = nn.Conv2d(8, 6, 3, padding=1)
    empty, full = LayerStatistics(layer, cross=True), gather(layer, random_pairs(layer, (8, 5, 5), [1]))
    empty.add(torch.empty(0, 8, 5, 5), torch.empty(0, 6, 5, 5))
    assert [part.shape for part in empty.sums()] == [part.shape for part in full.sums()]


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (nn.Conv2d(4, 6, 3, 2, padding=2, dilation=2), (4, 37, 41)),
        (nn.Conv1d(4, 6, 3, padding="same", padding_mode="circular"), (4, 500)),
        (nn.Conv2d(8, 6, 1), (8, 19, 23)),
        (nn.Linear(8, 6), (11, 13, 8)),
    ],
)
def test_drawn_positions(layer, shape):
    """There are as many as requested, they are positions of the input, and the batch size does not change them."""
    pairs = random_pairs(layer, shape, [2, 1, 3])
    moments = gather(layer, pairs, samples=6, positions_per_column=2).moments()
    columns = layer.weight[0].numel()
    assert moments.used == 2 * columns // 6 * 6 < moments.positions
    assert moments.positions == sum(len(output_rows(layer, y)) for _, y in pairs)
    whole = [(torch.cat([x for x, _ in pairs]), torch.cat([y for _, y in pairs]))]
    at_once = gather(layer, whole, samples=6, positions_per_column=2).moments()
    assert torch.allclose(at_once.hessian.to_dense(), moments.hessian.to_dense(), rtol=1e-5, atol=1e-6)
    assert_equal(moments, drawn_reference(layer, whole[0], moments.used // 6))


def drawn_reference(layer, pair, drawn):
    x, y = input_columns(layer, pair[0].double()), output_rows(layer, pair[1].double())
    count = len(x) // len(pair[0])
    rows = []
    for index in range(len(pair[0])):
        order = torch.randperm(count, generator=torch.Generator().manual_seed(index))
        rows.append(order[:drawn] + index * count)
    x, y = x[torch.cat(rows)], y[torch.cat(rows)] - layer.bias.detach().double()
    return x.T @ x / len(x), y.T @ x / len(x), float(y.square().sum()) / len(x)


def test_all_positions_are_used_where_drawing_is_more_work():
    layer = nn.Conv2d(4, 6, 3, padding=1)
    pairs = random_pairs(layer, (4, 12, 12), [2])
    # 36 columns, 288 positions: half of them, unfolded, cost more than 13 correlations over all.
    moments = gather(layer, pairs, samples=2, positions_per_column=4).moments()
    assert moments.used == moments.positions == 288


def test_hessian_alone():
    layer = nn.Conv2d(4, 6, 3)
    statistics = LayerStatistics(layer)
    x = torch.randn(2, 4, 5, 5)
    statistics.add(x)
    moments = statistics.moments()
    columns = input_columns(layer, x)
    torch.testing.assert_close(moments.hessian.to_dense(), columns.T @ columns / len(columns))
    assert moments.cross is None
    assert moments.energy is None


def test_bad_inputs_name_the_layer():
    layer = nn.Conv2d(4, 6, 3, padding=1)
    with pytest.raises(InputError, match="conv7"):
        LayerStatistics(layer).moments("conv7")
    with pytest.raises(InputError, match="outputs"):
        LayerStatistics(layer, cross=True).add(torch.randn(1, 4, 5, 5))
    for bad in (float("nan"), float("inf")):
        ((x, y),) = random_pairs(layer, (4, 5, 5), [1])
        for tensor in (x, y):
            kept = float(tensor[0, 2, 4, 0])
            tensor[0, 2, 4, 0] = bad
            with pytest.raises(NumericsError, match="conv7"):
                gather(layer, [(x, y)]).moments("conv7")
            tensor[0, 2, 4, 0] = kept
