"""The research project's method, mistakes included."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from sparsegpt_core.linalg import DenseHessian
from sparsegpt_core.network import weight_to_matrix
from sparsegpt_core.patterns import NM, Unstructured, find_violations
from sparsegpt_core.pruning import cnn_sparsegpt
from sparsegpt_core.reasons import Reason
from sparsegpt_core.solvers.sparsegpt import prune_with_sparsegpt


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 16, 3), nn.ReLU(), nn.Flatten(), nn.Linear(16 * 36, 4)
    )


@pytest.fixture
def batches():
    return list(torch.rand(40, 1, 8, 8, generator=torch.Generator().manual_seed(1)).split(16))


def by_the_book(weight: np.ndarray, inputs: np.ndarray, n: int, m: int, block: int) -> np.ndarray:
    """The project's loop, column by column: W (K, d), inputs (d, N)."""
    hessian = inputs @ inputs.T / inputs.shape[1]
    inverse = np.linalg.inv(hessian + 0.01 * np.trace(hessian) / len(hessian) * np.eye(len(hessian)))
    diagonal = np.diag(inverse)
    sparse = weight.copy()
    keep = np.zeros(weight.shape, bool)
    for j in range(weight.shape[1]):
        if j % block == 0:
            score = sparse**2 / diagonal
            for row in range(len(weight)):
                for start in range(j, j + block, m):
                    keep[row, start + np.argsort(-score[row, start : start + m], kind="stable")[:n]] = True
        error = np.where(keep[:, j], 0, sparse[:, j]) / diagonal[j]
        sparse[:, j + 1 :] -= np.outer(error, inverse[j, j + 1 :])
        sparse[~keep[:, j], j] = 0
    return sparse


@pytest.mark.parametrize("block", [16, 64])
def test_one_layer_is_pruned_as_in_the_project(batches, monkeypatch, block):
    monkeypatch.setattr("sparsegpt_core.pruning.research_project.BLOCK_COLUMNS", block)
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 6, bias=False)).double()
    images = [batch.double() for batch in batches]
    weight = model[1].weight.detach().numpy().copy()
    inputs = torch.cat(images).flatten(1).T.numpy()
    (layer,) = cnn_sparsegpt(model, images, NM(2, 4))
    expected = by_the_book(weight, inputs, 2, 4, block)
    np.testing.assert_allclose(model[1].weight.detach().numpy(), expected, atol=1e-10)
    moved = np.square((weight - expected) @ inputs).sum() / np.square(weight @ inputs).sum()
    assert layer.relative_error == pytest.approx(moved, rel=1e-6)
    assert layer.sparsity == pytest.approx(0.5, abs=0.01)


def test_its_groups_run_along_the_wrong_axis(batches):
    model = network()
    layers = cnn_sparsegpt(model, batches, NM(2, 4))
    weight = model[2].weight.detach().numpy()
    assert find_violations(weight.reshape(16, -1), NM(2, 4), axis=1).count == 0
    found = find_violations(weight, NM(2, 4), axis=1)
    assert 0.15 < found.count / found.groups < 0.5  # what TensorRT reads: about a third holds too many
    assert [(layer.name, layer.kind, layer.status) for layer in layers] == [
        ("0", "Conv2d", "dense"),
        ("2", "Conv2d", "pruned"),
        ("5", "Linear", "pruned"),
    ]
    assert layers[0].reason is Reason.CHANNELS_NOT_MULTIPLE  # of nine columns
    assert layers[0].sparsity == 0
    assert layers[1].shape == (16, 8, 3, 3)


def test_unstructured_takes_the_stem_and_the_classifier_too(batches):
    model = network()
    layers = cnn_sparsegpt(model, batches, Unstructured(0.5))
    assert [layer.status for layer in layers] == ["pruned"] * 3
    assert all(layer.sparsity == pytest.approx(0.5, abs=0.02) for layer in layers)
    assert model.training


def test_without_its_mistakes_it_is_sparsegpt(monkeypatch):
    monkeypatch.setattr(
        "sparsegpt_core.pruning.research_project.BLOCK_COLUMNS", 4
    )  # masks from the newest values, as published
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(8, 6, 3, bias=False)).double()
    images = torch.rand(30, 8, 6, 6, dtype=torch.float64)
    columns = F.unfold(images, 3).unflatten(1, (8, 9)).permute(2, 1, 0, 3).flatten(2).flatten(0, 1)
    hessian = columns @ columns.T / columns.shape[1]
    expected = prune_with_sparsegpt(
        weight_to_matrix(model[0].weight.detach()), DenseHessian(hessian).factor(0.01).upper, NM(2, 4)
    )
    cnn_sparsegpt(model, [images], NM(2, 4), right_axis=True, right_update=True)
    torch.testing.assert_close(weight_to_matrix(model[0].weight.detach()), expected)
    assert find_violations(model[0].weight.detach().numpy(), NM(2, 4), axis=1).count == 0
