import pytest
import torch
from torch import nn

from sparsegpt_core.network import input_columns, output_rows, split_batches
from sparsegpt_core.statistics import LayerStatistics, SplitStatistics, pooled

LAYERS = [nn.Linear(12, 5), nn.Conv2d(4, 6, 3, 2, 1), nn.Conv2d(4, 6, 3, 1, 1, bias=False), nn.Conv2d(8, 3, 1)]


def pairs(layer, batches=(3, 4, 2)):
    torch.manual_seed(0)
    shape = (layer.in_features,) if isinstance(layer, nn.Linear) else (layer.in_channels, 6, 7)
    with torch.no_grad():
        inputs = [torch.rand(size, *shape) for size in batches]
        return [(x, layer(x) + 0.1 * torch.randn_like(layer(x))) for x in inputs]


def about_the_means(layer, pairs):
    """The central moments from the unfolded inputs, in float64."""
    x = torch.cat([input_columns(layer, x.double()) for x, _ in pairs])
    y = torch.cat([output_rows(layer, y.double()) for _, y in pairs])
    y = y if layer.bias is None else y - layer.bias.detach().double()
    mean, output_mean = x.mean(0), y.mean(0)
    x, y = x - mean, y - output_mean
    return x.T @ x / len(x), y.T @ x / len(x), float(y.square().sum()) / len(x), mean, output_mean


def gathered(layer, pairs, statistics):
    first = 0
    for x, y in pairs:
        statistics.add_all([(x, y, first)])
        first += len(x)
    return statistics.moments()


def assert_close(moments, expected):
    hessian, cross, energy, mean, output_mean = expected
    for actual, wanted in [(moments.hessian.to_dense(), hessian), (moments.cross, cross), (moments.mean, mean)]:
        torch.testing.assert_close(actual.double(), wanted, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(moments.output_mean.double(), output_mean, rtol=1e-4, atol=1e-5)
    assert moments.energy == pytest.approx(energy, rel=1e-4)


@pytest.mark.parametrize("layer", LAYERS, ids=str)
def test_centred_moments_are_those_about_the_means(layer):
    known = pairs(layer)
    assert_close(
        gathered(layer, known, LayerStatistics(layer, cross=True, centred=True)), about_the_means(layer, known)
    )


@pytest.mark.parametrize("layer", LAYERS, ids=str)
def test_pooled_moments_are_those_of_both_parts(layer):
    known = pairs(layer)
    fitted, held_out = gathered(layer, known, SplitStatistics(layer, 9, 2, cross=True, centred=True))
    assert_close(fitted, about_the_means(layer, known[:2]))
    assert_close(held_out, about_the_means(layer, known[2:]))
    assert_close(pooled(fitted, held_out), about_the_means(layer, known))


def test_pooled_plain_moments():
    layer = LAYERS[0]
    known = pairs(layer)
    parts = gathered(layer, known, SplitStatistics(layer, 9, 2, cross=True))
    whole = gathered(layer, known, LayerStatistics(layer, cross=True))
    both = pooled(*parts)
    torch.testing.assert_close(both.hessian.to_dense(), whole.hessian.to_dense())
    torch.testing.assert_close(both.cross, whole.cross)
    assert both.energy == pytest.approx(whole.energy)
    assert (both.used, both.mean, both.output_mean) == (whole.used, None, None)


def test_nothing_held_out():
    layer = LAYERS[0]
    fitted, held_out = gathered(layer, pairs(layer), SplitStatistics(layer, 9, 0, cross=True))
    assert held_out is None
    assert fitted.used == 9


@pytest.mark.parametrize(
    ("at", "sizes"), [(10, [4, 4, 2]), (13, [3, 1, 4, 2]), (14, [4, 4, 2]), (17, [4, 3, 1, 2]), (19, [4, 4, 1, 1])]
)
def test_batches_are_cut_at_a_sample(at, sizes):
    batches = list(torch.arange(10).split(4))
    cut = split_batches(batches, 10, at)
    assert [len(batch) for batch in cut] == sizes
    assert torch.equal(torch.cat(cut), torch.arange(10))
