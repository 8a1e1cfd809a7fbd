"""A Hessian stored by its root must give the results of the dense one."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from sparsegpt_core.linalg import DenseHessian, LowRankHessian, LowRankUpper
from sparsegpt_core.linalg.low_rank import LowRankInverse
from sparsegpt_core.patterns import NM, Unstructured
from sparsegpt_core.pruning import prune_model
from sparsegpt_core.settings import PruneSettings
from sparsegpt_core.solvers import solve
from sparsegpt_core.solvers.exact_groups import prune_with_exact_groups
from sparsegpt_core.solvers.sparsegpt import prune_with_sparsegpt
from sparsegpt_core.statistics import SplitStatistics

COLUMNS = 600  # three blocks of the factorisation, the first of them short


def root(rank=40, columns=COLUMNS, seed=0):
    """R of correlated columns, like those of a layer: rectified mixtures."""
    torch.manual_seed(seed)
    return torch.relu(torch.randn(rank, 30) @ torch.randn(30, columns)) / rank**0.5


def dense_hessian(root):
    return DenseHessian(root.T @ root)


def test_operations_are_those_of_the_dense_hessian():
    low_rank, dense = LowRankHessian(root()), dense_hessian(root())
    left, scale, apart, shift = torch.randn(5, COLUMNS), *(torch.rand(COLUMNS) + 0.5 for _ in range(3))
    merged = low_rank.merged(LowRankHessian(root(seed=1)), 0.3, apart)
    for ours, expected in [
        (low_rank, dense),
        (low_rank.scaled(4.0), dense.scaled(4.0)),
        (low_rank.normalised(scale), dense.normalised(scale)),
        (merged, dense.merged(dense_hessian(root(seed=1)), 0.3, apart)),
        (low_rank.resolvent(shift, 0.5), dense.resolvent(shift, 0.5)),
    ]:
        torch.testing.assert_close(left @ ours, left @ expected, rtol=1e-4, atol=1e-3)
    torch.testing.assert_close(low_rank.diagonal(), dense.diagonal())
    torch.testing.assert_close(low_rank.to_dense(), dense.to_dense())
    assert low_rank.columns == dense.columns == COLUMNS
    assert (low_rank.equivalent_columns, dense.equivalent_columns) == (80, COLUMNS)


def test_the_inverse_is_that_of_the_dense_hessian():
    diagonal = torch.rand(COLUMNS) + 0.1
    inverse = LowRankInverse(root(), diagonal, rho=1.5)
    expected = 1.5 * (root().double().T @ root().double() + diagonal.double().diag()).inverse()
    torch.testing.assert_close(torch.eye(COLUMNS) @ inverse, expected.float(), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(inverse.diagonal(), expected.diagonal().float(), rtol=1e-5, atol=0)


@settings(deadline=None, max_examples=30)
@given(rank=st.integers(1, 60), columns=st.integers(1, 700), block=st.integers(20, 300), seed=st.integers(0, 99))
def test_the_factor_is_that_of_the_dense_hessian(rank, columns, block, seed):
    own = root(rank, columns, seed)
    diagonal = torch.rand(columns) + 0.1
    upper = LowRankUpper(own, diagonal)
    damped = own.double().T @ own.double() + diagonal.double().diag()
    expected = torch.linalg.cholesky(damped.flip(0, 1)).flip(0, 1).float()
    changes = torch.randn(columns, 3)
    pulls = upper.pulls(changes)
    for start in range(0, columns, block):
        own_columns = slice(start, min(columns, start + block))
        torch.testing.assert_close(upper.corner(own_columns), expected[own_columns, own_columns], rtol=1e-3, atol=1e-3)
        pull = expected[:start, own_columns].T @ changes[:start]
        torch.testing.assert_close(pulls(own_columns), pull, rtol=1e-3, atol=1e-2)


@pytest.mark.parametrize("way", [prune_with_sparsegpt, prune_with_exact_groups])
def test_greedy_masks_are_those_of_the_dense_hessian(way):
    torch.manual_seed(1)
    weight = torch.randn(20, COLUMNS)
    kept = way(weight, LowRankHessian(root()).factor().upper, NM(2, 4))
    expected = way(weight, dense_hessian(root()).factor().upper, NM(2, 4))
    assert ((kept != 0) == (expected != 0)).float().mean() > 0.999  # rounding decides near ties
    assert float((kept - expected).norm() / expected.norm()) < 0.02


@pytest.mark.parametrize("centred", [False, True])
@pytest.mark.parametrize(
    "settings",
    [
        PruneSettings(),
        PruneSettings(mask="adaptive"),
        PruneSettings(mask="exact", alpha=0.5),
        PruneSettings(mask="auto", alpha=None),
        PruneSettings(pattern=Unstructured(0.7)),
    ],
    ids=lambda settings: f"{settings.pattern} {settings.mask}",
)
def test_a_layer_is_pruned_as_with_the_dense_hessian(settings, centred):
    torch.manual_seed(1)
    layer = nn.Linear(COLUMNS, 24)
    x = root(64) * 8
    x[:, 5] = 3  # is nearly constant
    held_out = settings.held_out_count(64)
    found = []
    with torch.no_grad():
        y = layer(x + 0.1 * torch.randn_like(x))
        for kept_vectors in (1, 0):
            statistics = SplitStatistics(layer, 64, held_out, kept_vectors=kept_vectors, cross=True, centred=centred)
            for start in (40, 0):  # the order of batches does not matter
                stop = 64 - held_out if start else 40
                statistics.add_all([(x[start:stop], y[start:stop], start)])
            statistics.add_all([(x[64 - held_out :], y[64 - held_out :], 64 - held_out)] if held_out else [])
            found.append(statistics.moments())
    assert all((judge is None) == (not held_out) for _, judge in found)
    for kept, whole in zip(*found, strict=True):
        if kept is not None:
            assert_same_moments(kept, whole)
    weight = layer.weight.detach()
    kept, whole = (solve(weight, fitted, settings, held_out=judge).matrix for fitted, judge in found)
    assert ((kept != 0) == (whole != 0)).float().mean() > 0.99
    assert bool((kept[:, 5] == 0).all()) == bool((whole[:, 5] == 0).all())
    # In float64, where rounding decides between no masks, no choices and no INT8 weights.
    fitted, judge = (kept and precise(kept) for kept in found[0])
    weight = weight.double()
    kept = solve(weight, fitted, settings, held_out=judge, int8_weights=True)
    whole = solve(weight, multiplied(fitted), settings, held_out=judge and multiplied(judge), int8_weights=True)
    torch.testing.assert_close(kept.matrix, whole.matrix, rtol=1e-6, atol=1e-8)
    assert kept.choices == whole.choices
    for name in ("relative_error", "magnitude_error", "inherited_error", "sensitivity"):
        expected = getattr(whole, name)
        assert getattr(kept, name) == (expected and pytest.approx(expected, rel=1e-5, abs=1e-9)), name
    assert (kept.shift is None) == (whole.shift is None) == (not centred)
    assert bool((kept.int8_weight.values == whole.int8_weight.values).all())


def assert_same_moments(kept, whole):
    """Equal up to rounding: one stores float32 rows, the other sums float32 products."""
    assert isinstance(kept.hessian, LowRankHessian)
    torch.testing.assert_close(kept.hessian.to_dense(), whole.hessian.to_dense(), rtol=1e-4, atol=1e-3)
    for name in ("cross", "energy", "mean", "output_mean"):
        torch.testing.assert_close(getattr(kept, name), getattr(whole, name), rtol=1e-4, atol=1e-3)
    assert (kept.positions, kept.used) == (whole.positions, whole.used)


def precise(moments):
    """Return the moments in float64."""
    tensors = {name: value.double() for name, value in vars(moments).items() if isinstance(value, torch.Tensor)}
    return replace(moments, hessian=LowRankHessian(moments.hessian.root.double()), **tensors)


def multiplied(moments):
    """Return the moments with a dense H."""
    return replace(moments, hessian=DenseHessian(moments.hessian.to_dense()))


@pytest.mark.parametrize("centred", [False, True])
def test_a_convolution_keeps_its_vectors(centred):
    torch.manual_seed(2)
    layer = nn.Conv2d(8, 6, 3, stride=2, padding=1)
    scale = torch.linspace(0.5, 2, 6)
    with torch.no_grad():
        x = torch.randn(6, 8, 5, 5).relu()
        y = layer(x + 0.1)
        found = []
        for kept_vectors in (9, 0):
            options = {"kept_vectors": kept_vectors, "cross": True, "centred": centred, "output_scale": scale}
            statistics = SplitStatistics(layer, 6, 2, **options)
            for samples in (slice(2, 4), slice(0, 2), slice(4, 6)):
                statistics.add_all([(x[samples], y[samples], samples.start)])
            found.append(statistics.moments())
    for kept, whole in zip(*found, strict=True):
        assert_same_moments(kept, whole)
    assert [kept.samples for kept in found[0]] == [4, 2]


class Narrowing(nn.Sequential):
    """A network with a convolution of 2304 columns and four positions for each image."""

    def __init__(self):
        super().__init__(
            nn.Conv2d(1, 256, 3, padding=1),
            nn.AdaptiveAvgPool2d(2),
            nn.ReLU(),
            nn.Conv2d(256, 16, 3, padding=1),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(64, 3),
        )


def test_few_positions_prune_a_wide_convolution_by_its_vectors(monkeypatch):
    found = []
    for per_position in (4, 10**6):
        monkeypatch.setattr("sparsegpt_core.network.layers._MIN_COLUMNS_PER_POSITION", per_position)
        torch.manual_seed(0)
        model = Narrowing().eval()
        images = list(torch.rand(20, 1, 12, 12).split(8))
        found.append((prune_model(model, images, PruneSettings(mask="adaptive")), model[3].weight.detach()))
    (result, kept), (expected, whole) = found
    assert ((kept != 0) == (whole != 0)).float().mean() > 0.99
    error, other = (next(each.relative_error for each in run.layers if each.name == "3") for run in (result, expected))
    assert error == pytest.approx(other, rel=0.02, abs=1e-6)


def test_images_of_several_sizes_sum_the_hessian():
    torch.manual_seed(0)
    model = Narrowing().eval()
    result = prune_model(model, [torch.rand(4, 1, 12, 12), torch.rand(4, 1, 16, 16)], PruneSettings())
    assert next(each.positions for each in result.layers if each.name == "3") == 32


class Wide(nn.Sequential):
    """A network with a layer of 2304 columns, far more than nine images have positions."""

    def __init__(self):
        super().__init__(
            nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(2304, 16), nn.ReLU(), nn.Linear(16, 3)
        )


def pruned(samples, **options):
    torch.manual_seed(0)
    model = Wide().eval()
    images = torch.rand(samples, 1, 12, 12)
    result = prune_model(model, list(images.split(4)), PruneSettings(**options))
    return model[3].weight.detach(), next(layer for layer in result.layers if layer.name == "3")


def test_few_images_prune_a_wide_layer_by_their_positions(monkeypatch):
    made = []
    monkeypatch.setattr(
        "sparsegpt_core.statistics.split_statistics.RowStatistics",
        lambda *a, **k: made.append(k["samples"]) or RowStatistics(*a, **k),
    )
    from sparsegpt_core.statistics.row_statistics import RowStatistics

    kept, result = pruned(9)
    monkeypatch.setattr("sparsegpt_core.network.layers._MIN_COLUMNS_PER_POSITION", 10**6)
    whole, expected = pruned(9)
    assert made == [9]
    assert result.positions == expected.positions == 9
    assert ((kept != 0) == (whole != 0)).float().mean() > 0.99
    assert result.relative_error == pytest.approx(expected.relative_error, rel=0.02, abs=1e-6)
