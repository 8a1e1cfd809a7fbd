"""2:4 layers on cuSPARSELt, through PyTorch: a second runtime beside TensorRT, for products with a matrix.

A linear layer is such a product, and so is an unpadded 1×1 convolution, position by position. PyTorch has no sparse
kernel for the others.
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

_AMPERE = (8, 0)
_OWN = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
_BLOCK = 16  # what PyTorch asks of both sides of an FP16 or BF16 matrix for cuSPARSELt


class Obstacle(Enum):
    """Why a layer stays dense; the value is the sentence shown beside the code."""

    OTHER_CLASS = "it is none of PyTorch's own Linear, Conv1d, Conv2d and Conv3d"
    GROUPED = "a grouped convolution is no product with one matrix"
    KERNEL = "only convolutions of 1×1 without padding are products with a matrix"
    PRECISION = "its weight is neither FP16 nor BF16"
    SHAPE = f"its inputs or outputs are not a multiple of {_BLOCK}"
    NOT_NM = "at least one group of four inputs holds more than two non-zeros; prune the layer"


@dataclass(frozen=True)
class SemiStructured:
    """What became of every linear and convolution layer: names of the sparse ones, and why the others are dense."""

    sparse: tuple[str, ...]
    dense: Mapping[str, Obstacle]


class MatrixLayer(nn.Module):
    """A linear layer or an unpadded 1×1 convolution, computed as one product with a matrix.

    Args:
        layer: What it stands for; its stride and bias are kept.
        matrix: Its weight, (K, C), dense or semi-structured.
    """

    def __init__(self, layer: PrunableLayer, matrix: Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(matrix, requires_grad=False)
        self.bias = layer.bias
        strides = () if isinstance(layer, nn.Linear) else layer.stride
        self._positions: tuple[Any, ...] = (..., *(slice(None, None, step) for step in strides))

    def forward(self, x: Tensor) -> Tensor:
        """Do what the layer did; a convolution copies its inputs and outputs unless they are channels-last.

        Args:
            x: (..., C) for a linear layer, (N, C, *spatial) or (C, *spatial) for a convolution.
        """
        channel = -len(self._positions)
        inputs = x[self._positions].movedim(channel, -1)
        product = F.linear(inputs.reshape(-1, inputs.shape[-1]), self.weight, self.bias)
        y = product.reshape(*inputs.shape[:-1], -1).movedim(-1, channel)
        return y.contiguous() if x.is_contiguous() else y


def to_semi_structured(model: nn.Module) -> SemiStructured:
    """Put every layer that cuSPARSELt can run sparsely on it, in place; for inference alone.

    Args:
        model: Pruned, in FP16 or BF16, on a CUDA GPU from compute capability 8.0 on.

    Raises:
        InputError: The model is not on such a GPU, or this PyTorch has no cuSPARSELt.
        ModelError: The model is a single layer, which cannot be replaced in place.
    """
    _check_runtime(device_of(model))
    if isinstance(model, (nn.Linear, _ConvNd)):
        raise ModelError("a single layer cannot be replaced in place", "Wrap it: torch.nn.Sequential(layer).")
    modules = model.named_modules(remove_duplicate=False)
    layers: dict[str, Any] = {name: module for name, module in modules if isinstance(module, (nn.Linear, _ConvNd))}
    obstacles = {layer: find_obstacle(layer) for layer in layers.values()}
    made = {layer: MatrixLayer(layer, _compressed(layer)) for layer, obstacle in obstacles.items() if not obstacle}
    for name, layer in layers.items():
        if layer in made:
            model.set_submodule(name, made[layer])
    dense = {name: obstacle for name, layer in layers.items() if (obstacle := obstacles[layer])}
    return SemiStructured(tuple(name for name in layers if name not in dense), dense)


def find_obstacle(layer: nn.Module) -> Obstacle | None:
    """Say why a layer cannot run on cuSPARSELt; None where it can, on a GPU that has it.

    Args:
        layer: A linear layer or a convolution, on any device.
    """
    if not isinstance(layer, _OWN) or type(layer) not in _OWN:  # subclasses may compute something else
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
    with warnings.catch_warnings():  # said once, to whoever is first
        warnings.filterwarnings("ignore", "The PyTorch API of SparseSemiStructuredTensor is in prototype", UserWarning)
        return torch.sparse.to_sparse_semi_structured(_matrix(layer))


def _check_runtime(device: torch.device) -> None:
    if not torch.cuda.is_available():
        raise InputError("there is no CUDA GPU here, and cuSPARSELt runs on nothing else", "Use ONNX Runtime here.")
    if device.type != "cuda":
        raise InputError(f"the model is on {device}, and cuSPARSELt needs it on a GPU", "Call model.half().cuda().")
    capability = torch.cuda.get_device_capability(device)
    if capability < _AMPERE:
        name = torch.cuda.get_device_name(device)
        raise InputError(f"{name} has no sparse tensor cores", "They come with compute capability 8.0 (Ampere).")
    if not torch.backends.cusparselt.is_available():
        raise InputError("this PyTorch was built without cuSPARSELt", "Use PyTorch's own wheels for Linux with CUDA.")
