"""Turns the weighted nodes of an ONNX graph into PyTorch's layers, or says why one stays as it is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.fx import Graph, Node

from export.audit import integer_attribute, is_custom, node_name
from export.importing.stored_tensors import StoredTensor, StoredTensors
from sparsegpt_core.errors import ModelError
from sparsegpt_core.network import PrunableLayer
from sparsegpt_core.reasons import Reason

__all__ = ["WeightedNode", "find_weighted_nodes", "is_weighted"]

Array = npt.NDArray[Any]
Step = tuple[Callable[..., Tensor], tuple[Any, ...]]

_CONVOLUTIONS: dict[int, type[nn.Conv1d | nn.Conv2d | nn.Conv3d]] = {3: nn.Conv1d, 4: nn.Conv2d, 5: nn.Conv3d}
_TRANSPOSED = {3: nn.ConvTranspose1d, 4: nn.ConvTranspose2d, 5: nn.ConvTranspose3d}
_PRODUCTS: dict[type[nn.Module], Any] = {
    nn.Conv1d: torch.ops.aten.conv1d.default,
    nn.Conv2d: torch.ops.aten.conv2d.default,
    nn.Conv3d: torch.ops.aten.conv3d.default,
}
_DTYPES = {"float16": torch.float16, "bfloat16": torch.bfloat16, "float32": torch.float32, "float64": torch.float64}


@dataclass(frozen=True)
class WeightedNode:
    """A Conv, ConvTranspose, Gemm or MatMul with a weight."""

    index: int
    """Its index into the graph's nodes."""
    name: str
    """The node's name, or else that of its output."""
    layer: nn.Module
    """The layer that computes the same, in float32; without a stored ``weight``, one with the weight alone."""
    reason: Reason | None = None
    """Why the node cannot be pruned."""
    weight: StoredTensor | None = None
    """Where the file stores the weight. None: it cannot change."""
    transposed: bool = False
    """Whether the node reads the weight as (C, K)."""
    bias: StoredTensor | None = None
    """Where the file stores the bias."""
    data: str = ""
    """The input that the weight multiplies."""
    output: str = ""
    """The node's output."""
    before: tuple[Step, ...] = ()
    """Functions, with their further arguments, that turn the node's input into the layer's."""
    after: tuple[Step, ...] = ()
    """Functions that turn the layer's output into the node's."""
    is_trained: bool = True
    """Whether the weight looks trained. Whole numbers are a formula, such as a detector's decoding of boxes."""

    @property
    def prunable(self) -> PrunableLayer:
        """The layer of a node with a stored weight."""
        if not isinstance(self.layer, PrunableLayer):
            raise TypeError(f"{self.name} has no layer")
        return self.layer

    @property
    def channel_axis(self) -> int:
        """The axis of the node's output channels, counted from the end."""
        dimensions = self.prunable.weight.ndim
        return 1 - dimensions if dimensions > 2 else -1 - any(step is _swap_last_axes for step, _ in self.after)

    def add_to(self, graph: Graph, x: Node, weight: Node, bias: Node | None) -> Node:
        """Add the layer's operations to a graph.

        Args:
            graph: The graph of ATen operations.
            x: The node's input.
            weight: The layer's weight.
            bias: The layer's bias.

        Returns:
            The node's output.
        """
        for function, arguments in self.before:
            x = graph.call_function(function, (x, *arguments))
        layer = self.prunable
        if isinstance(layer, nn.Linear):
            y = graph.call_function(torch.ops.aten.linear.default, (x, weight, bias))
        else:
            geometry: tuple[Any, ...] = ([*layer.stride], [*layer.padding], [*layer.dilation], layer.groups)
            y = graph.call_function(_PRODUCTS[type(layer)], (x, weight, bias, *geometry))
        for function, arguments in self.after:
            y = graph.call_function(function, (y, *arguments))
        return y


def find_weighted_nodes(graph: onnx.GraphProto, tensors: StoredTensors, order: Sequence[int]) -> list[WeightedNode]:
    """Return the weighted nodes of a graph.

    Convolutions count with any weight, Gemm and MatMul only with a constant matrix.

    Args:
        graph: The graph.
        tensors: Its constants.
        order: Indices of its nodes in running order, which is that of the result.

    Raises:
        ModelError: A convolution's attributes are impossible.

    Example:
        >>> import onnx.parser
        >>> graph = onnx.parser.parse_graph('''
        ...     g (float[N, 2] x) => (float[N, 1] y) <float[2, 1] w = {0.5, 1.5}> { y = MatMul(x, w) }
        ... ''')
        >>> (found,) = find_weighted_nodes(graph, StoredTensors(graph), [0])
        >>> found.name, found.layer, found.weight.name
        ('y', Linear(in_features=2, out_features=1, bias=False), 'w')
    """
    found = []
    for index in order:
        node = graph.node[index]
        if is_weighted(node):
            weighted = _READERS[node.op_type](index, node, tensors)
            found += [weighted] if weighted else []
    return found


def is_weighted(node: onnx.NodeProto) -> bool:
    """Return whether a node is of an operator that multiplies by a weight.

    Example:
        >>> is_weighted(onnx.helper.make_node("Gemm", ["x", "w"], ["y"]))
        True
    """
    return node.op_type in _READERS and not is_custom(node)


def _convolution(index: int, node: onnx.NodeProto, tensors: StoredTensors) -> WeightedNode | None:
    weight = tensors.constants.value(node.input[1])
    if weight is None or weight.ndim not in _CONVOLUTIONS or str(weight.dtype) not in _DTYPES:
        return _unprunable(index, node, nn.Module(), Reason.NOT_CONSTANT)
    groups = integer_attribute(node, "group", 1)
    (rows, channels), kernel = weight.shape[:2], weight.shape[2:]
    strides = _integers(node, "strides") or [1] * len(kernel)
    dilations = _integers(node, "dilations") or [1] * len(kernel)
    pads = _integers(node, "pads") or [0] * 2 * len(kernel)
    ranks = {len(strides), len(dilations), len(pads) / 2}
    if ranks != {len(kernel)} or min(groups, *strides, *dilations) < 1 or rows % groups:
        raise ModelError(f"the attributes of the node {node_name(node)} are impossible", "Export the model again.")
    padding, before = _padding(node, kernel, strides, dilations)
    kind: Any = _CONVOLUTIONS[weight.ndim]
    layer = kind(
        channels * groups,
        rows,
        kernel,
        stride=tuple(strides),
        padding=padding,
        dilation=tuple(dilations),
        groups=groups,
        bias=False,
        device="meta",
    )
    if weight.ndim == 4:  # the layout in which PyTorch's convolutions and the statistics are fastest
        before += ((_channels_last, ()),)
    bias = node.input[2] if len(node.input) > 2 else ""
    product = _product(index, node, tensors, layer, weight, 1, bias, before)
    return product if groups == 1 else replace(product, reason=Reason.GROUPED)


def _transposed_convolution(index: int, node: onnx.NodeProto, tensors: StoredTensors) -> WeightedNode | None:
    weight = tensors.constants.value(node.input[1])
    if weight is None or weight.ndim not in _TRANSPOSED:
        return _unprunable(index, node, nn.Module(), Reason.TRANSPOSED)
    channels, rows = weight.shape[:2]
    kind: Any = _TRANSPOSED[weight.ndim]
    layer = kind(channels, rows, weight.shape[2:], bias=False, device="meta")
    return _unprunable(index, node, _with_weight(layer, weight), Reason.TRANSPOSED)


def _gemm(index: int, node: onnx.NodeProto, tensors: StoredTensors) -> WeightedNode | None:
    weight = tensors.constants.value(node.input[1])
    if weight is None or weight.ndim != 2 or str(weight.dtype) not in _DTYPES:
        return None
    transposed = not integer_attribute(node, "transB", 0)
    matrix = weight.T if transposed else weight  # (K, C)
    bias = node.input[2] if len(node.input) > 2 else ""
    factors = {each.name: each.f for each in node.attribute if each.type == onnx.AttributeProto.FLOAT}
    if integer_attribute(node, "transA", 0) or factors.get("alpha", 1) != 1 or (bias and factors.get("beta", 1) != 1):
        return _unprunable(index, node, _with_weight(_linear(matrix), matrix), Reason.NOT_A_PRODUCT)
    return _product(index, node, tensors, _linear(matrix), matrix, 1, bias, (), transposed=transposed)


def _matmul(index: int, node: onnx.NodeProto, tensors: StoredTensors) -> WeightedNode | None:
    for place in (1, 0):
        weight = tensors.constants.value(node.input[place])
        if weight is None or weight.ndim < 2 or str(weight.dtype) not in _DTYPES:
            continue
        if weight.ndim > 2:
            holder = _with_weight(nn.Linear(1, 1, bias=False, device="meta"), weight)
            return _unprunable(index, node, holder, Reason.NOT_A_PRODUCT)
        if place:
            return _product(index, node, tensors, _linear(weight.T), weight.T, 1, "", (), transposed=True)
        flip: tuple[Step, ...] = ((_swap_last_axes, ()),)  # W x = (xᵀ Wᵀ)ᵀ
        return _product(index, node, tensors, _linear(weight), weight, 0, "", flip, flip)
    return None


def _product(
    index: int,
    node: onnx.NodeProto,
    tensors: StoredTensors,
    layer: PrunableLayer,
    weight: Array,
    place: int,
    bias: str,
    before: tuple[Step, ...],
    after: tuple[Step, ...] = (),
    transposed: bool = False,
) -> WeightedNode:
    """Return the node of a layer, unless its weight or bias has no place of its own in the file."""
    layer = _with_weight(layer, weight)
    stored = tensors.find(node.input[place])
    if stored is None:
        return _unprunable(index, node, layer, Reason.QUANTISED)
    stored_bias = None
    if bias:
        value = tensors.constants.value(bias)
        if value is None or value.size != len(weight) or value.shape[-1:] != (len(weight),):
            return _unprunable(index, node, layer, Reason.NOT_A_PRODUCT)
        layer.bias = nn.Parameter(_float_tensor(value.reshape(-1)), requires_grad=False)
        alone = tensors.readers(bias) == {index}
        stored_bias = tensors.find(bias) if alone else None
    if weight.dtype != np.float32:
        before = ((_cast, (torch.float32,)), *before)
        after = (*after, (_cast, (_DTYPES[str(weight.dtype)],)))
    return WeightedNode(
        index,
        node_name(node),
        layer,
        weight=stored,
        transposed=transposed,
        bias=stored_bias,
        data=node.input[1 - place],
        output=node.output[0],
        before=before,
        after=after,
        is_trained=_looks_trained(weight),
    )


_READERS: dict[str, Callable[[int, onnx.NodeProto, StoredTensors], WeightedNode | None]] = {
    "Conv": _convolution,
    "ConvTranspose": _transposed_convolution,
    "Gemm": _gemm,
    "MatMul": _matmul,
}


def _unprunable(index: int, node: onnx.NodeProto, layer: nn.Module, reason: Reason) -> WeightedNode:
    weight = getattr(layer, "weight", None)
    trained = weight is None or _looks_trained(weight.detach().numpy())
    return WeightedNode(index, node_name(node), layer, reason, is_trained=trained)


def _linear(matrix: Array) -> nn.Linear:
    return nn.Linear(matrix.shape[1], matrix.shape[0], bias=False, device="meta")


def _with_weight(layer: Any, weight: Array) -> Any:
    layer.weight = nn.Parameter(_float_tensor(weight), requires_grad=False)
    return layer


def _float_tensor(value: Array) -> Tensor:
    """Return a tensor of its own; one of a mapped file stays there until it is written."""
    if isinstance(value, np.memmap) and not value.flags.owndata and value.dtype == np.float32:
        return torch.from_numpy(value)
    return torch.from_numpy(np.ascontiguousarray(value, dtype=np.float32).copy())


def _looks_trained(weight: Array) -> bool:
    return bool((weight != np.rint(weight)).any())


def _integers(node: onnx.NodeProto, name: str) -> list[int]:
    return next(([*each.ints] for each in node.attribute if each.name == name), [])


def _padding(
    node: onnx.NodeProto, kernel: Sequence[int], strides: Sequence[int], dilations: Sequence[int]
) -> tuple[tuple[int, ...], tuple[Step, ...]]:
    """Return the padding that PyTorch's layer can have, or zeros and the step that pads the input."""
    none = (0,) * len(kernel)
    auto = next((each.s.decode(errors="replace") for each in node.attribute if each.name == "auto_pad"), "NOTSET")
    if auto.startswith("SAME"):
        return none, ((_pad_same, ([*kernel], [*strides], [*dilations], auto == "SAME_UPPER")),)
    pads = [] if auto == "VALID" else _integers(node, "pads")
    begin, end = pads[: len(kernel)], pads[len(kernel) :]
    if begin == end:
        return tuple(begin) or none, ()
    pairs = [size for low, high in reversed([*zip(begin, end)]) for size in (low, high)]
    return none, ((_pad, (pairs,)),)


def _pad(x: Tensor, pairs: list[int]) -> Tensor:
    return F.pad(x, pairs)


def _pad_same(x: Tensor, kernel: list[int], strides: list[int], dilations: list[int], upper: bool) -> Tensor:
    """Pad so that the output has ceil(size / stride) positions. An odd rest goes to the end, or to the start."""
    pairs: list[int] = []
    for size, window, stride, dilation in zip(x.shape[2:], kernel, strides, dilations):
        total = max(0, (-(-size // stride) - 1) * stride + (window - 1) * dilation + 1 - size)
        less, more = total // 2, total - total // 2
        pairs = [less, more, *pairs] if upper else [more, less, *pairs]
    return F.pad(x, pairs)


def _channels_last(x: Tensor) -> Tensor:
    return x.contiguous(memory_format=torch.channels_last)


def _cast(x: Tensor, dtype: torch.dtype) -> Tensor:
    return x.to(dtype)


def _swap_last_axes(x: Tensor) -> Tensor:
    return x.transpose(-1, -2)
