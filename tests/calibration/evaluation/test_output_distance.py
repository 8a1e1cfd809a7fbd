import numpy as np
import pytest
import torch
from torch import nn

from calibration.evaluation import distance, outputs_of, score
from sparsegpt_core.errors import InputError
from tests.support.precision import PrecisionProbe


def test_equal_outputs_are_no_distance_apart():
    logits = torch.randn(8, 5, dtype=torch.float64)
    found = distance(logits, logits)
    assert (found.logit_error, found.kl, found.disagreement) == (0.0, 0.0, 0.0)


def test_against_the_definitions():
    first, second = torch.randn(2, 40, 5, dtype=torch.float64)
    found = distance(first, second)
    p, q = first.softmax(1), second.softmax(1)
    assert found.kl == pytest.approx(float((p * (p / q).log()).sum(1).mean()))
    assert found.logit_error == pytest.approx(float(((first - second) ** 2).sum() / (first**2).sum()))
    assert found.disagreement == pytest.approx(
        100 * sum(int(a.argmax() != b.argmax()) for a, b in zip(first, second, strict=True)) / 40
    )


def test_maps_of_classes_are_compared_pixel_by_pixel():
    first = torch.zeros(1, 2, 2, 2, dtype=torch.float64)
    first[:, 0] = 1
    second = first.clone()
    second[0, 1, 0, 0] = 5
    assert distance(first, second).disagreement == 25


@pytest.mark.parametrize("other", [torch.zeros(3, 4), torch.zeros(4, 3)])
def test_other_shapes_are_refused(other):
    with pytest.raises(InputError, match="cannot be compared"):
        distance(torch.zeros(4, 4), other)


def test_the_first_of_several_outputs_counts():
    class Two(nn.Module):
        def forward(self, x):
            return {"out": x.flatten(1), "auxiliary": x.sum()}

    images = [torch.randn(2, 3, 4, 4), torch.randn(1, 3, 4, 4)]
    model = Two().train()
    outputs = outputs_of(model, images)
    assert torch.equal(outputs, torch.cat(images).flatten(1).double())
    assert model.training


def test_outputs_and_accuracies_are_measured_without_tf32():
    model = PrecisionProbe()
    outputs_of(model, [torch.ones(2, 4, 1, 1)])
    images, labels = np.ones((2, 4, 1, 1), dtype=np.float32), np.array([0, 1])
    score(model, [(images, labels)], 2, torch.device("cpu"))
    assert model.seen == [("highest", False)] * 2
