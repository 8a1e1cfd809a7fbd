"""The layers that run on cuSPARSELt, and their replacements; sparse products if there is a GPU."""

from __future__ import annotations

import contextlib
import copy

import pytest
import torch
import torchvision
from torch import nn
from torch._subclasses import FakeTensorMode
from torch.sparse import SparseSemiStructuredTensorCUSPARSELT
from torch.sparse._semi_structured_conversions import (
    sparse_semi_structured_from_dense_cutlass,
    sparse_semi_structured_to_dense_cutlass,
)

from export import cusparselt as semi_structured
from export.cusparselt import MatrixLayer, Obstacle, find_obstacle, to_semi_structured
from sparsegpt_core.errors import InputError, ModelError
from sparsegpt_core.network import matrix_to_weight, weight_to_matrix
from sparsegpt_core.patterns import NM
from sparsegpt_core.solvers import keep_mask


def prune(model: nn.Module) -> nn.Module:
    """Prune every layer that can be, by magnitude, on our own axis; then FP16."""
    for layer in model.modules():
        if isinstance(layer, (nn.Linear, nn.Conv1d, nn.Conv2d)) and layer.weight.shape[1] % 4 == 0:
            matrix = weight_to_matrix(layer.weight.detach())
            pruned = matrix * keep_mask(matrix.abs(), NM(2, 4))
            layer.weight.data = matrix_to_weight(pruned, layer.weight.shape)
    return model.half().eval()


@pytest.fixture
def packed_on_the_cpu(monkeypatch: pytest.MonkeyPatch) -> list[torch.Size]:
    """Stand in for the GPU: PyTorch's own packing to two values and their places of four, and back."""
    shapes = []

    def packed(dense: torch.Tensor) -> torch.Tensor:
        shapes.append(dense.shape)
        return sparse_semi_structured_to_dense_cutlass(*sparse_semi_structured_from_dense_cutlass(dense))

    monkeypatch.setattr(semi_structured, "_check_runtime", lambda device: None)
    monkeypatch.setattr(torch.sparse, "to_sparse_semi_structured", packed)
    return shapes


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (nn.Linear(16, 32), (5, 16)),
        (nn.Linear(16, 32, bias=False), (2, 3, 5, 16)),
        (nn.Conv1d(16, 32, 1), (2, 16, 9)),
        (nn.Conv2d(16, 32, 1), (2, 16, 6, 5)),
        (nn.Conv2d(16, 32, 1, bias=False, stride=2), (2, 16, 7, 8)),
        (nn.Conv2d(16, 32, 1, stride=(1, 3), dilation=2), (16, 7, 8)),
        (nn.Conv3d(16, 32, 1, stride=2, padding="valid"), (2, 16, 3, 4, 5)),
    ],
)
def test_a_matrix_layer_does_what_the_layer_did(layer: nn.Module, shape: tuple[int, ...]) -> None:
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = layer(x)
        got = MatrixLayer(layer, layer.weight.detach().flatten(1))(x)
        torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-5)
        assert got.stride() == expected.stride()
        if len(shape) == 4 and isinstance(layer, nn.Conv2d):  # no copies where there need be none
            last = MatrixLayer(layer, layer.weight.detach().flatten(1))(x.to(memory_format=torch.channels_last))
            torch.testing.assert_close(last, expected, rtol=1e-5, atol=1e-5)
            assert last.is_contiguous(memory_format=torch.channels_last)


def test_an_input_that_is_a_view_is_taken() -> None:
    """PyTorch's own sparse linear layer refuses it."""
    layer = nn.Linear(16, 16)
    x = torch.randn(16, 3, 4).movedim(0, -1)
    with torch.no_grad():
        torch.testing.assert_close(MatrixLayer(layer, layer.weight)(x), layer(x))


@pytest.mark.parametrize(
    ("layer", "obstacle"),
    [
        (nn.Linear(64, 32), None),
        (nn.Conv2d(64, 32, 1, stride=2), None),
        (nn.Conv2d(64, 32, 3), Obstacle.KERNEL),
        (nn.Conv2d(64, 32, (1, 3)), Obstacle.KERNEL),
        (nn.Conv2d(64, 32, 1, padding=1), Obstacle.KERNEL),
        (nn.Conv2d(64, 32, 1, groups=2), Obstacle.GROUPED),
        (nn.ConvTranspose2d(64, 32, 1), Obstacle.OTHER_CLASS),
        (nn.MultiheadAttention(64, 2).out_proj, Obstacle.OTHER_CLASS),
        (nn.utils.parametrizations.weight_norm(nn.Linear(64, 32)), Obstacle.OTHER_CLASS),
        (nn.Linear(64, 10), Obstacle.SHAPE),
        (nn.Linear(24, 32), Obstacle.SHAPE),
    ],
)
def test_obstacles(layer: nn.Module, obstacle: Obstacle | None) -> None:
    assert find_obstacle(prune(layer)) is obstacle


def test_dense_and_fp32_weights_are_obstacles() -> None:
    layer = prune(nn.Linear(64, 32))
    assert find_obstacle(layer.bfloat16()) is None
    assert find_obstacle(layer.float()) is Obstacle.PRECISION
    layer.half().weight.data[3, 8:12] = torch.tensor([1, 0, 1, 1])
    assert find_obstacle(layer) is Obstacle.NOT_NM


def test_the_block_is_the_one_that_pytorch_requires() -> None:
    for dtype in (torch.float16, torch.bfloat16):
        constraint = SparseSemiStructuredTensorCUSPARSELT._DTYPE_SHAPE_CONSTRAINTS[dtype]
        assert constraint.sparse_min_rows == constraint.sparse_min_cols == semi_structured._BLOCK


def test_pytorch_packs_our_weights_without_loss() -> None:
    pruned = prune(nn.Linear(128, 64)).weight.detach()
    for weight, lossless in ((pruned, True), (torch.ones_like(pruned), False)):
        again = sparse_semi_structured_to_dense_cutlass(*sparse_semi_structured_from_dense_cutlass(weight))
        assert torch.equal(again, weight) is lossless


def test_a_network_computes_the_same_with_packed_weights(packed_on_the_cpu: list[torch.Size]) -> None:
    model = prune(torchvision.models.resnet50(num_classes=64))
    x = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0)).half()
    with torch.no_grad():
        before = model(x)
        result = to_semi_structured(model)
        after = model(x)
    assert torch.nn.functional.cosine_similarity(before.float(), after.float()).item() > 0.9999
    assert set(result.dense.values()) == {Obstacle.KERNEL}  # the stem and sixteen 3×3 convolutions
    assert (len(result.sparse), len(result.dense)) == (16 * 2 + 4 + 1, 17)
    assert len(packed_on_the_cpu) == len(result.sparse)
    assert isinstance(model.layer2[0].downsample[0], MatrixLayer)
    assert model.fc.weight.shape == (64, 2048)


def test_a_shared_layer_is_replaced_everywhere_and_packed_once(packed_on_the_cpu: list[torch.Size]) -> None:
    layer = prune(nn.Linear(64, 64))
    model = nn.Sequential(layer, nn.ReLU(), nn.Sequential(layer))
    assert to_semi_structured(model).sparse == ("0", "2.0")
    assert isinstance(model[0], MatrixLayer)
    assert model[0] is model[2][0]
    assert len(packed_on_the_cpu) == 1


def test_a_single_layer_is_refused(packed_on_the_cpu: list[torch.Size]) -> None:
    with pytest.raises(ModelError, match="single layer"):
        to_semi_structured(prune(nn.Linear(64, 64)))


def test_pytorchs_sparse_product_takes_our_shapes(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a GPU without contents: PyTorch's checks and its dispatch run, the product itself does not."""

    def compress(dense: torch.Tensor) -> torch.Tensor:
        return dense.new_empty(len(dense), dense.shape[1] * 9 // 16)

    monkeypatch.setattr(semi_structured, "_check_runtime", lambda device: None)
    monkeypatch.setattr(semi_structured, "find_obstacle", lambda layer: None)
    monkeypatch.setattr(torch, "_cslt_compress", compress)
    gpu = {"device": "cuda", "dtype": torch.float16}
    with FakeTensorMode(), torch.no_grad():
        model = nn.Sequential(
            nn.Conv2d(64, 32, 1, stride=2, **gpu), nn.Flatten(2), nn.Linear(16, 48, bias=False, **gpu)
        )
        to_semi_structured(model)
        assert isinstance(model[0].weight, SparseSemiStructuredTensorCUSPARSELT)
        y = model(torch.empty(3, 64, 7, 7, **gpu))
        assert (y.shape, y.dtype) == ((3, 32, 48), torch.float16)


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is here")
def test_no_gpu_is_one_line_of_error() -> None:
    with pytest.raises(InputError, match="needs a CUDA GPU") as caught:
        to_semi_structured(nn.Sequential(nn.Linear(64, 64)))
    assert caught.value.hint


@pytest.mark.parametrize(
    ("device", "capability", "available", "message"),
    [
        ("cpu", (9, 0), True, "it is on cpu"),
        ("cuda", (7, 5), True, "Turing has no sparse tensor cores"),
        ("cuda", (8, 0), False, "built without cuSPARSELt"),
        ("cuda", (8, 0), True, None),
    ],
)
def test_what_the_runtime_needs(monkeypatch, device, capability, available, message) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Turing")
    monkeypatch.setattr(torch.backends.cusparselt, "is_available", lambda: available)
    with pytest.raises(InputError, match=message) if message else contextlib.nullcontext():
        semi_structured._check_runtime(torch.device(device))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA GPU here")
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_sparse_products_on_a_gpu(dtype: torch.dtype) -> None:
    layers = nn.Conv2d(64, 128, 1), nn.ReLU(), nn.Conv2d(128, 64, 1, stride=2, bias=False), nn.Flatten(2)
    model = prune(nn.Sequential(*layers, nn.Linear(16, 48))).to(dtype)
    x = torch.randn(3, 64, 7, 7, generator=torch.Generator().manual_seed(0)).to(dtype)
    with torch.no_grad():
        expected = copy.deepcopy(model).float()(x.float())
        model.cuda()
        assert to_semi_structured(model).sparse == ("0", "2", "4")
        got = model(x.cuda()).float().cpu()
    assert isinstance(model[4].weight, SparseSemiStructuredTensorCUSPARSELT)
    assert ((got - expected).norm() / expected.norm()).item() < 4 * torch.finfo(dtype).eps
