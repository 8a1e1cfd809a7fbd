"""Accuracy against scikit-learn's metrics."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, log_loss, top_k_accuracy_score
from torch import Tensor, nn

from calibration.data import EvaluationSplit, open_data, subset_indices
from calibration.data.image_sources import ArrayImages, Samples
from calibration.evaluation import evaluate
from sparsegpt_core.errors import DataError, InputError, ModelError, NumericsError


def split_of(logits: np.ndarray, labels: np.ndarray | None) -> EvaluationSplit:
    """Samples whose images (C, 1, 1) are the logits that ``nn.Flatten`` makes of them."""
    return EvaluationSplit(Samples(ArrayImages(logits[:, :, None, None].astype(np.float32)), labels))


@settings(deadline=None, max_examples=40)
@given(st.integers(2, 12), st.integers(1, 60), st.integers(1, 70), st.integers(0, 999))
def test_scores_are_scikit_learns(classes: int, count: int, batch_size: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    logits, labels = 2 * rng.standard_normal((count, classes)), rng.integers(0, classes, count)
    result = evaluate(nn.Flatten(), split_of(logits, labels), batch_size=batch_size)
    known = list(range(classes))
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    assert result.samples == count
    assert result.top1 == pytest.approx(100 * accuracy_score(labels, logits.argmax(axis=1)))
    loss = log_loss(labels, probabilities, labels=known)
    assert result.loss == pytest.approx(loss, rel=1e-5, abs=1e-6)  # ours has float32 logits
    if classes > 5:
        assert result.top5 == pytest.approx(100 * top_k_accuracy_score(labels, logits, k=5, labels=known))
    else:
        assert result.top5 is None


def test_equal_logits_count_for_the_first_class_only() -> None:
    constant = evaluate(nn.Flatten(), split_of(np.zeros((10, 10)), np.arange(10)))
    assert (constant.top1, constant.top5) == (10, 50)


def test_a_limit_takes_the_seeded_subset() -> None:
    rng = np.random.default_rng(1)
    logits, labels = rng.standard_normal((200, 3)), rng.integers(0, 3, 200)
    split = split_of(logits, labels)
    result = evaluate(nn.Flatten(), split, limit=50, seed=7)
    chosen = subset_indices(split, 50, 7)
    assert result.samples == 50
    assert result.top1 == pytest.approx(100 * accuracy_score(labels[chosen], logits[chosen].argmax(axis=1)))
    assert evaluate(nn.Flatten(), split, limit=500).samples == 200
    with pytest.raises(DataError, match="0 samples"):
        evaluate(nn.Flatten(), split, limit=0)


def test_the_model_is_left_as_it_was() -> None:
    norm = nn.BatchNorm2d(1)
    model = nn.Sequential(norm, nn.Dropout(0.9), nn.Flatten(), nn.Linear(64, 10))
    model[1].eval()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    data = open_data("digits")
    assert data.evaluation is not None
    steps: list[tuple[str, int, int]] = []
    first = evaluate(model, data.evaluation, progress=lambda *step: steps.append(step))
    assert [module.training for module in model.modules()] == [True, True, False, True, True]
    torch.testing.assert_close(dict(model.state_dict()), before, rtol=0, atol=0)
    assert evaluate(model, data.evaluation) == first
    assert steps == [("evaluate", done, 599) for done in (0, 256, 512, 599)]
    assert set(json.loads(json.dumps(first.to_json()))) == {"top1", "top5", "loss", "samples"}


class Returns(nn.Module):
    """A model that ignores its input."""

    def __init__(self, result: object) -> None:
        super().__init__()
        self.result = result

    def forward(self, images: Tensor) -> object:
        return self.result


@pytest.mark.parametrize(
    ("model", "error", "reason"),
    [
        (nn.Conv2d(3, 4, 3), ModelError, "the model fails on images (4, 6, 1, 1): "),
        (nn.Identity(), ModelError, "does not return logits (N, classes)"),
        (Returns((torch.zeros(4, 6),)), ModelError, "does not return logits (N, classes)"),
        (Returns(torch.zeros(1, 6)), ModelError, "does not return logits (N, classes)"),
        (Returns(torch.zeros(4, 3)), DataError, "label 5, but the model has 3 outputs"),
        (Returns(torch.full((4, 6), torch.nan)), NumericsError, "NaN"),
    ],
)
def test_models_that_do_not_fit_are_refused(model: nn.Module, error: type[Exception], reason: str) -> None:
    with pytest.raises(error, match=re.escape(reason)) as caught:
        evaluate(model.train(), split_of(np.zeros((4, 6)), np.array([0, 1, 2, 5])))
    assert model.training
    assert "\n" not in str(caught.value)


def test_without_labels_there_is_no_accuracy() -> None:
    with pytest.raises(DataError, match="no labels"):
        evaluate(nn.Flatten(), split_of(np.zeros((4, 6)), None))


@pytest.mark.parametrize("device", ["gpu", "cuda:99", ""])
def test_a_device_that_does_not_exist_is_refused(device: str) -> None:
    with pytest.raises(InputError, match="cannot be used"):
        evaluate(nn.Flatten(), split_of(np.zeros((1, 6)), np.array([0])), device=device)
