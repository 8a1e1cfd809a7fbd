import copy

import pytest
import torch
from torch import nn

from calibration.recovery import reestimate_batchnorm


def network():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.5), nn.Conv2d(4, 2, 3), nn.BatchNorm2d(2)
    )


def test_statistics_are_those_of_the_batches():
    model = network()
    batches = [torch.randn(6, 3, 8, 8), torch.randn(6, 3, 8, 8) + 1]
    assert reestimate_batchnorm(model, batches) == 2
    with torch.no_grad():
        outputs = [model[0](batch) for batch in batches]
        mean = torch.cat(outputs).mean((0, 2, 3))
        variance = torch.stack([output.transpose(0, 1).flatten(1).var(1) for output in outputs]).mean(0)
    torch.testing.assert_close(model[1].running_mean, mean, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(model[1].running_var, variance, rtol=1e-4, atol=1e-5)


def test_a_smaller_last_batch_counts_less():
    whole, cut = network(), network()
    images = torch.randn(9, 3, 8, 8)
    reestimate_batchnorm(whole, [images])
    reestimate_batchnorm(cut, list(images.split(6)))
    torch.testing.assert_close(cut[1].running_mean, whole[1].running_mean, rtol=1e-4, atol=1e-5)


def test_nothing_else_changes():
    model = network()
    model[1].momentum, model[5].momentum = 0.3, None
    model[5].eval()
    before = copy.deepcopy(model)
    reestimate_batchnorm(model, [torch.randn(4, 3, 8, 8)])
    assert [module.training for module in model] == [module.training for module in before]
    assert (model[1].momentum, model[5].momentum) == (0.3, None)
    for (name, value), old in zip(model.state_dict().items(), before.state_dict().values(), strict=True):
        assert torch.equal(value, old) is ("running" not in name and "tracked" not in name), name


def test_dropout_stays_off():
    first, second = network(), network()
    images = [torch.randn(4, 3, 8, 8)]
    for model in (first, second):
        reestimate_batchnorm(model, images)
    assert torch.equal(first[5].running_mean, second[5].running_mean)


def test_an_error_leaves_modes_and_momenta():
    model = network()
    with pytest.raises(RuntimeError):
        reestimate_batchnorm(model, [torch.randn(4, 5, 8, 8)])
    assert all(module.training for module in model)
    assert model[1].momentum == 0.1


def test_without_batch_norm_nothing_happens():
    assert reestimate_batchnorm(nn.Sequential(nn.Conv2d(3, 4, 3)), [torch.randn(1, 3, 8, 8)]) == 0
