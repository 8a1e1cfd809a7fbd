"""Runs 2:4 layers on cuSPARSELt through PyTorch, a second runtime besides TensorRT.

PyTorch has sparse kernels for products with a matrix alone: linear layers, and unpadded 1×1 convolutions, which are one
such product for each position.

No command uses this module. It is for PyTorch users, and ``benchmarks.gpu.pruning`` measures it.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from sparsegpt_core.errors import InputError, ModelError
from sparsegpt_core.execution import device_of
from sparsegpt_core.network import PrunableLayer
from sparsegpt_core.patterns import NM, find_violations

__all__ = ["MatrixLayer", "Obstacle", "SemiStructured", "find_obstacle", "to_semi_structured"]

_MIN_COMPUTE_CAPABILITY = (8, 0)  # Ampere
_CLASSES = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
_BLOCK = 16  # PyTorch requires both sides of an FP16 or BF16 matrix to be multiples of it


class Obstacle(Enum):
    """Why a layer stays dense. The value is the explanation in English."""

    OTHER_CLASS = "its class is not PyTorch's own Linear, Conv1d, Conv2d or Conv3d"
    GROUPED = "a grouped convolution is not a product with one matrix"
    KERNEL = "only 1×1 convolutions without padding are products with a matrix"
    PRECISION = "its weight is neither FP16 nor BF16"
    SHAPE = f"the number of its inputs or outputs is not a multiple of {_BLOCK}"
    NOT_NM = "at least one group of four inputs has more than two non-zeros; prune the layer"


@dataclass(frozen=True)
class SemiStructured:
    """The linear and convolution layers of a model, after :func:`to_semi_structured`."""

    sparse: tuple[str, ...]
    """Names of the layers that run on cuSPARSELt."""
    dense: Mapping[str, Obstacle]
    """Why each other layer stays dense, by name."""


class MatrixLayer(nn.Module):
    """A linear layer or an unpadded 1×1 convolution, computed as one product with a matrix.

    Args:
        layer: The layer to replace. Its stride and bias are kept.
        matrix: The layer's weight (K, C), dense or semi-structured.

    Example:
        >>> layer = nn.Conv2d(4, 8, 1, stride=2)
        >>> MatrixLayer(layer, layer.weight.flatten(1))(torch.ones(2, 4, 6, 6)).shape
        torch.Size([2, 8, 3, 3])
    """

    def __init__(self, layer: PrunableLayer, matrix: Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(matrix, requires_grad=False)
        self.bias = layer.bias
        strides = () if isinstance(layer, nn.Linear) else layer.stride
        self._positions: tuple[Any, ...] = (..., *(slice(None, None, step) for step in strides))

    def forward(self, x: Tensor) -> Tensor:
        """Compute the layer's outputs. A convolution copies its inputs and outputs unless they are channels-last.

        Args:
            x: (..., C) for a linear layer, (N, C, *spatial) or (C, *spatial) for a convolution.
        """
        channel = -len(self._positions)
        inputs = x[self._positions].movedim(channel, -1)  # (N, *spatial, C)
        product = F.linear(inputs.reshape(-1, inputs.shape[-1]), self.weight, self.bias)  # (N · positions, K)
        y = product.reshape(*inputs.shape[:-1], -1).movedim(-1, channel)
        return y.contiguous() if x.is_contiguous() else y


def to_semi_structured(model: nn.Module) -> SemiStructured:
    """Replace every layer that cuSPARSELt can run, in place. The model is then for inference only.

    Args:
        model: The pruned model, in FP16 or BF16, on a CUDA GPU of compute capability 8.0 or higher.

    Raises:
        InputError: The model is not on such a GPU, or this PyTorch has no cuSPARSELt.
        ModelError: The model is a single layer, which cannot be replaced in place.

    Example:
        >>> model = nn.Sequential(nn.Linear(64, 64)).half().cuda()  # doctest: +SKIP
        >>> to_semi_structured(model).dense  # doctest: +SKIP
        {'0': <Obstacle.NOT_NM: 'at least one group of four inputs has more than two non-zeros; prune the layer'>}
    """
    _check_runtime(device_of(model))
    if isinstance(model, (nn.Linear, _ConvNd)):
        raise ModelError("a single layer cannot be replaced in place", "Wrap it: torch.nn.Sequential(layer).")
    modules = model.named_modules(remove_duplicate=False)
    layers: dict[str, Any] = {name: module for name, module in modules if isinstance(module, (nn.Linear, _ConvNd))}
    obstacles = {layer: find_obstacle(layer) for layer in layers.values()}
    replacements = {
        layer: MatrixLayer(layer, _compressed(layer)) for layer, obstacle in obstacles.items() if not obstacle
    }
    for name, layer in layers.items():
        if layer in replacements:
            model.set_submodule(name, replacements[layer])
    dense = {name: obstacle for name, layer in layers.items() if (obstacle := obstacles[layer])}
    return SemiStructured(tuple(name for name in layers if name not in dense), dense)


def find_obstacle(layer: nn.Module) -> Obstacle | None:
    """Return why a layer cannot run on cuSPARSELt; None if it can, on a suitable GPU.

    Args:
        layer: A linear layer or a convolution, on any device.

    Example:
        >>> find_obstacle(nn.Conv2d(16, 16, 3).half()).name
        'KERNEL'
    """
    if not isinstance(layer, _CLASSES) or type(layer) not in _CLASSES:  # subclasses may compute something else
        return Obstacle.OTHER_CLASS
    if not isinstance(layer, nn.Linear):
        if layer.groups > 1:
            return Obstacle.GROUPED
        if any(size > 1 for size in layer.kernel_size) or any(layer._reversed_padding_repeated_twice):
            return Obstacle.KERNEL
    matrix = _matrix(layer)
    if matrix.dtype not in (torch.float16, torch.bfloat16):
        return Obstacle.PRECISION
    if any(size % _BLOCK for size in matrix.shape):
        return Obstacle.SHAPE
    return Obstacle.NOT_NM if find_violations((matrix != 0).cpu().numpy(), NM(2, 4), axis=1).count else None


def _matrix(layer: PrunableLayer) -> Tensor:
    """Return the weight as (K, C)."""
    return layer.weight.detach().flatten(1).contiguous()


def _compressed(layer: PrunableLayer) -> Tensor:
    with warnings.catch_warnings():  # PyTorch warns once in a process
        warnings.filterwarnings("ignore", "The PyTorch API of SparseSemiStructuredTensor is in prototype", UserWarning)
        return torch.sparse.to_sparse_semi_structured(_matrix(layer))


def _check_runtime(device: torch.device) -> None:
    if not torch.cuda.is_available():
        raise InputError("cuSPARSELt needs a CUDA GPU, and there is none", "Use ONNX Runtime.")
    if device.type != "cuda":
        raise InputError(f"cuSPARSELt needs the model on a GPU, and it is on {device}", "Call model.half().cuda().")
    capability = torch.cuda.get_device_capability(device)
    if capability < _MIN_COMPUTE_CAPABILITY:
        name = torch.cuda.get_device_name(device)
        raise InputError(
            f"{name} has no sparse tensor cores", "Use a GPU of compute capability 8.0 (Ampere) or higher."
        )
    if not torch.backends.cusparselt.is_available():
        raise InputError("this PyTorch was built without cuSPARSELt", "Use PyTorch's own wheels for Linux with CUDA.")
