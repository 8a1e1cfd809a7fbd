"""The saliency of every weight, also where a wide layer sees few samples."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from sparsegpt_core.execution import Resources, used_memory
from sparsegpt_core.patterns import NM, Unstructured
from sparsegpt_core.pruning import global_quotas, permute_model, prune_model
from sparsegpt_core.pruning.saliency import measure_saliencies
from sparsegpt_core.settings import PruneSettings

SAMPLES = 16
SETTINGS = PruneSettings(include=("wide",))


class Wide(nn.Module):
    """A linear layer after a flatten with far more columns than samples, as in VGG-16."""

    def __init__(self, channels: int = 64) -> None:
        super().__init__()
        self.stem = nn.Conv2d(4, channels, 3, padding=1)
        self.wide = nn.Linear(channels * 64, 8)
        self.head = nn.Linear(8, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.head(self.wide(self.stem(x).relu().flatten(1)).relu())
        return out


class LargestTensor(TorchDispatchMode):
    """Records the most entries of any tensor that an operation returns."""

    def __init__(self) -> None:
        super().__init__()
        self.entries = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        found = [leaf.numel() for leaf in tree_leaves(result) if isinstance(leaf, torch.Tensor)]
        self.entries = max(self.entries, *found, 0)
        return result


def network(channels: int = 64) -> Wide:
    torch.manual_seed(0)
    return Wide(channels).eval()


def images() -> list[torch.Tensor]:
    return list(torch.randn(SAMPLES, 4, 8, 8, generator=torch.Generator().manual_seed(1)).split(6))


@pytest.mark.parametrize("traced", [True, False])
def test_saliencies_of_a_wide_layer_with_few_samples_are_the_explicit_ones(traced: bool) -> None:
    model = network()
    found = measure_saliencies(model, images(), SETTINGS, resources=Resources(traced=traced))
    x = model.stem(torch.cat(images())).relu().flatten(1).detach().double()
    weight, columns = model.wide.weight.detach().double(), x.shape[1]
    x = x - x.mean(dim=0)  # the bias takes up the mean
    hessian = x.T @ x / SAMPLES
    damping = SETTINGS.damping_for(SAMPLES, columns) * hessian.diagonal().mean()
    inverse = torch.linalg.inv(hessian + damping * torch.eye(columns, dtype=torch.double))
    expected = weight.square() / inverse.diagonal()
    torch.testing.assert_close(found.saliencies["wide"].double(), expected, rtol=1e-4, atol=0)
    assert found.energies["wide"] == pytest.approx(float((weight @ x.T).square().sum() / SAMPLES), rel=1e-4)


def test_no_hessian_is_made_of_a_wide_layer_with_few_samples() -> None:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # a dispatch mode sees its own thread alone
    try:
        with LargestTensor() as largest:
            measure_saliencies(network(), images(), SETTINGS, resources=Resources(traced=False))
    finally:
        torch.set_num_threads(threads)
    columns = 64 * 64
    assert math.prod((SAMPLES, columns)) <= largest.entries < columns**2


@pytest.mark.parametrize("task", [prune_model, permute_model, global_quotas])
def test_a_memory_limit_that_pruning_fits_fits_its_preparations(task) -> None:
    model = network(256)  # H (16384, 16384) would take 5.5 GiB
    pattern = Unstructured(0.5) if task is global_quotas else NM(2, 4)
    limit = int((used_memory(torch.device("cpu")) + (512 << 20)) / 0.9)
    settings = PruneSettings(pattern, include=("wide",), mask="adaptive")
    task(model, images(), settings, resources=Resources(memory_limit=limit))
