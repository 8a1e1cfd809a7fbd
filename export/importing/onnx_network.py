"""A network from an ONNX file: its layers are PyTorch's, and ONNX Runtime computes everything between them."""

from __future__ import annotations

import hashlib
import math
import operator
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import onnx
import torch
from onnx import helper
from torch import Tensor, nn
from torch.fx import Graph, Node
from torch.utils._pytree import tree_leaves

from export.audit import inlined, write_metadata
from export.importing.graph_check import check_graph
from export.importing.runtime_call import RuntimeCall
from export.importing.segments import Piece, cut_graph, sorted_nodes, varying_tensors
from export.importing.shift_constants import ShiftConstant, find_shift_constant
from export.importing.stored_tensors import StoredTensors, with_values
from export.importing.weight_flow import find_heads
from export.importing.weighted_nodes import WeightedNode, find_weighted_nodes
from sparsegpt_core.errors import ModelError, first_line
from sparsegpt_core.network import (
    GraphNetwork,
    Layer,
    PrunableLayer,
    ShiftTarget,
    channels_reason,
    check_globs,
    chosen_reason,
    find_sample_axis,
    tensors_of,
)
from sparsegpt_core.patterns import Pattern
from sparsegpt_core.reasons import Reason

__all__ = ["OnnxNetwork"]

_OUTPUT = "output_"  # buffers of outputs that are constants
_SHIFT = "shift"  # the buffer of a layer whose shift another node's constant takes up
_INPUT_TYPES: dict[int, torch.dtype] = {
    onnx.TensorProto.UINT8: torch.uint8,
    onnx.TensorProto.FLOAT16: torch.float16,
    onnx.TensorProto.FLOAT: torch.float32,
    onnx.TensorProto.DOUBLE: torch.float64,
}
_PROBE_SIZE = 64  # of a dynamic axis, where the network is tried on random inputs
_MAX_PROBE_NUMBERS = 1 << 27  # 512 MiB
_SAME = 1e-3  # relative; a batch is not computed in the same order as one sample


class OnnxNetwork(GraphNetwork):
    """A network from an ONNX file, which can run and be pruned as a PyTorch module.

    Each Conv, Gemm and MatMul that can be pruned is a layer of PyTorch with the node's name. ONNX Runtime runs the
    nodes between them. :meth:`to_onnx` returns the file's graph with the layers' weights.

    Args:
        model: The model, with its weights in memory.
        custom_operators: The paths of libraries with custom operators for ONNX Runtime.

    Raises:
        ModelError: The graph is broken, or ONNX Runtime cannot load it.

    Example:
        >>> import onnx.parser
        >>> network = OnnxNetwork(onnx.parser.parse_model('''
        ...     <ir_version: 8, opset_import: ["": 17]>
        ...     g (float[N, 2] x) => (float[N, 1] y)
        ...     <float[2, 1] w = {0.5, 1.5}> { p = MatMul(x, w)  y = Relu(p) }
        ... '''))
        >>> network(torch.tensor([[2.0, 4.0]])), list(network.state_dict())
        (tensor([[7.]]), ['p.weight'])
    """

    def __init__(self, model: onnx.ModelProto, custom_operators: Sequence[str] = ()) -> None:
        flat = inlined(model)
        check_graph(flat)
        order, tensors = sorted_nodes(flat.graph), StoredTensors(flat.graph)
        varying = varying_tensors(flat.graph, order)
        weighted = _with_sharing(find_weighted_nodes(flat.graph, tensors, order), tensors, model.graph, varying)
        super().__init__(Graph(), digest=_digest(model))
        names = _layer_names(weighted)
        shifts = _find_shifts(flat.graph, tensors, weighted, names)
        for node in weighted:
            if names.get(node.index) == node.name:
                self.add_layer(node.name, node.layer)
        for index, constant in shifts.items():
            value = np.asarray(tensors.constants.value(constant.name), dtype=np.float32).reshape(-1)
            self.get_submodule(names[index]).register_buffer(_SHIFT, torch.from_numpy(value.copy()))
        pieces = cut_graph(flat.graph, names, [constant.name for constant in shifts.values()])
        for place, each in enumerate(flat.graph.output):
            stored = tensors.initializer(each.name)
            if stored is not None:
                self.register_buffer(f"{_OUTPUT}{place}", torch.from_numpy(np.array(stored)), persistent=False)
            elif each.name not in varying or not each.name:
                raise ModelError(f"no node computes the graph's output '{each.name}'", "Export the model again.")
        self._source = _Source(model, flat.graph, order, weighted, names, shifts, pieces)
        _fill(self.graph, flat, self._source, custom_operators)
        self.batch_size = self._fixed_batch(flat.graph)

    @property
    def input_shapes(self) -> dict[str, tuple[int | None, ...]]:
        """The shapes of the graph's inputs, by name; None for dynamic sizes."""
        return {each.name: _shape(each) for each in _inputs(self._source.graph)}

    def forward(self, *inputs: Tensor) -> Any:
        """Run the network on inputs (N, ...). A file with a fixed batch runs batch by batch."""
        if self.batch_size is None or self.batch_size == len(inputs[0]):
            return super().forward(*inputs)
        outputs = [GraphNetwork.forward(self, *part) for part in _split(inputs, self.batch_size)]
        if isinstance(outputs[0], dict):
            return {name: _joined([each[name] for each in outputs]) for name in outputs[0]}
        return _joined(outputs)

    def select_layers(
        self, sample: Tensor, pattern: Pattern, include: Sequence[str] = (), exclude: Sequence[str] = ()
    ) -> list[Layer]:
        """List the layers in running order. Each reason says why a layer stays dense.

        Args:
            sample: A small batch of inputs (N, ...).
            pattern: The pattern. N:M needs C to be a multiple of M.
            include: Globs of layer names.
            exclude: Globs of layer names.

        Raises:
            ModelError: The network does not take the sample.
            InputError: A glob matches no layer.
        """
        source = self._source
        check_globs((*include, *exclude), [node.name for node in source.weighted])
        sample = sample[: self.batch_size]
        self._try(sample)
        heads = find_heads(source.graph, source.order, source.weighted)
        place = {index: number for number, piece in enumerate(source.pieces) for index in piece.nodes}
        nodes = sorted(source.weighted, key=lambda node: place.get(node.index, len(place)))
        first = next((each for each in nodes if not isinstance(each.layer, nn.Linear) and each.index in place), None)
        layers: dict[str, Layer] = {}
        for node in nodes:
            name = source.names.get(node.index, node.name)
            if name in layers and node.reason is None:  # another call of a shared layer
                layers[name] = replace(layers[name], calls=layers[name].calls + 1, shift_target=None)
                continue
            module: Any = self.get_submodule(name) if node.reason is None else node.layer
            reason = node.reason or (None if node.index in place else Reason.NOT_REACHED)
            if reason is None:
                reason = channels_reason(module.weight.shape[1], pattern) or chosen_reason(
                    node.name, include, exclude, is_first=node is first, is_head=node.index in heads
                )
            layers[name] = self._layer(node, module, reason, len(sample))
        return list(layers.values())

    def to_onnx(self, metadata: dict[str, Any] | None = None) -> onnx.ModelProto:
        """Return the file's model with the layers' weights. Everything else is as it was.

        Args:
            metadata: What the model records about itself beside the file's own metadata, JSON-able.
        """
        source = self._source
        values: dict[str, Any] = {}
        for node in source.weighted:
            if node.weight is None or node.index not in source.names:
                continue
            layer: Any = self.get_submodule(source.names[node.index])
            weight = layer.weight.detach().cpu().numpy()
            values[node.weight.name] = node.weight.as_stored(weight.T if node.transposed else weight)
            if node.bias is not None:
                values[node.bias.name] = node.bias.as_stored(layer.bias.detach().cpu().numpy())
        for index, constant in source.shifts.items():
            shift = self.get_submodule(source.names[index]).get_buffer(_SHIFT).cpu().numpy()
            values[constant.stored.name] = constant.stored.as_stored(shift.reshape(constant.shape))
        model = with_values(source.model, values)
        if metadata:
            write_metadata(model, metadata)
        return model

    def _layer(self, node: WeightedNode, module: nn.Module, reason: Reason | None, samples: int) -> Layer:
        source = self._source
        if node.index not in source.names:
            return Layer(node.name, module, calls=0, reason=reason)
        name, target, one_vector, sample_axis = source.names[node.index], None, False, 0
        if node.index in source.shifts:
            target = ShiftTarget(module.get_buffer(_SHIFT), source.shifts[node.index].sign)
        elif node.bias is not None:
            target = ShiftTarget(module.get_parameter("bias"), 1)
        for each in self.graph.nodes:
            if isinstance(module, nn.Linear) and each.op == "get_attr" and each.target == f"{name}.weight":
                shapes = [user.args[0].meta["val"].shape for user in each.users]
                one_vector = len(shapes) == 1 and len(shapes[0]) == 2 and shapes[0][0] == samples
                sample_axis = find_sample_axis(shapes[-1], samples)
        return Layer(
            name,
            module,
            calls=1,
            reason=reason,
            common_call=module if isinstance(module, PrunableLayer) else None,
            shift_target=target,
            one_vector_per_sample=one_vector,
            sample_axis=sample_axis,
        )

    def _try(self, sample: Tensor) -> None:
        """Run the network on a sample and record the shapes."""
        try:
            for x, shape in zip(tensors_of(sample), self.input_shapes.values()):
                if len(x.shape) != len(shape) or any(b not in (None, a) for a, b in zip(x.shape[1:], shape[1:])):
                    raise ValueError("the file fixes other sizes")
            with torch.no_grad():
                self.record_values(sample)
        except (ModelError, RuntimeError, ValueError, TypeError, IndexError) as error:
            shapes = " and ".join(str(tuple(each.shape[1:])) for each in tensors_of(sample))
            wanted = ", ".join(f"{name} {_text(shape)}" for name, shape in self.input_shapes.items())
            raise ModelError(
                f"the model does not take inputs of shape {shapes}: {first_line(error)}",
                f"Its inputs are {wanted}. Give `image_size`, or other `data`.",
            ) from error

    def _fixed_batch(self, graph: onnx.GraphProto) -> int | None:
        """Return the batch size of the file; None if it is open, or if the network computes the same in any batch."""
        shapes = [_shape(each) for each in _inputs(graph)]
        size = shapes[0][0] if shapes and shapes[0] else None
        if size is None or any(shape[:1] != (size,) for shape in shapes):
            return None
        generator = torch.Generator().manual_seed(0)
        sizes = [(2 * size, *(each or _PROBE_SIZE for each in shape[1:])) for shape in shapes]
        if sum(map(math.prod, sizes)) > _MAX_PROBE_NUMBERS:
            return size
        probes = [torch.rand(*each, generator=generator) for each in sizes]
        try:
            with torch.no_grad():
                both = tree_leaves(GraphNetwork.forward(self, *probes))
                halves = [tree_leaves(GraphNetwork.forward(self, *part)) for part in _split(probes, size)]
        except (ModelError, RuntimeError, ValueError, TypeError, IndexError):
            return size
        pairs = zip(both, map(_joined, zip(*halves)))
        return None if all(a.shape == b.shape and _near(a, b) for a, b in pairs) else size


@dataclass(frozen=True)
class _Source:
    """The file, and how the network is cut from it. Copies of a network share it."""

    model: onnx.ModelProto
    """The file's model."""
    graph: onnx.GraphProto
    """Its graph, with functions inlined."""
    order: list[int]
    """Indices of the graph's nodes in running order."""
    weighted: list[WeightedNode]
    """The nodes with weights."""
    names: dict[int, str]
    """By index of a node that can be pruned the name of its layer in the network."""
    shifts: dict[int, ShiftConstant]
    """By index of such a node the constant that takes up shifts of its outputs."""
    pieces: list[Piece]
    """The pieces of the graph in running order."""

    def __deepcopy__(self, memo: dict[int, Any]) -> _Source:
        """Return the same object: nothing in it changes."""
        return self


def _with_sharing(
    weighted: Sequence[WeightedNode], tensors: StoredTensors, graph: onnx.GraphProto, varying: set[str]
) -> list[WeightedNode]:
    """Give a reason to nodes that multiply constants, and to those whose weight is not theirs alone.

    It is not where another operation reads it too, or where it is not in the file's own graph.
    """
    stored = {tensor.name for tensor in graph.initializer} | {name for node in graph.node for name in node.output}
    users: dict[str, list[WeightedNode]] = {}
    for node in weighted:
        if node.weight is not None:
            users.setdefault(node.weight.name, []).append(node)
    settled = []
    for node in weighted:
        reason = node.reason
        if node.weight is not None:
            own = users[node.weight.name]
            if node.data not in varying:
                reason = Reason.NOT_REACHED
            elif node.weight.name not in stored:
                reason = Reason.IN_SUBGRAPH
            elif tensors.readers(node.weight.name) != {each.index for each in own} or not all(
                _same_layer(each, own[0]) for each in own
            ):
                reason = Reason.READ_ELSEWHERE
        settled.append(replace(node, reason=reason))
    return settled


def _same_layer(a: WeightedNode, b: WeightedNode) -> bool:
    return a is b or (
        str(a.layer) == str(b.layer)
        and (a.transposed, a.bias, a.before, a.after) == (b.transposed, b.bias, b.before, b.after)
        and torch.equal(a.prunable.weight, b.prunable.weight)
    )


def _layer_names(weighted: Iterable[WeightedNode]) -> dict[int, str]:
    """Return the layer's name for each node that can be pruned: that of the first node with its weight."""
    owners: dict[str, str] = {}
    names = {}
    for node in weighted:
        if node.reason is None and node.weight is not None:
            names[node.index] = owners.setdefault(node.weight.name, node.name)
    return names


def _find_shifts(
    graph: onnx.GraphProto, tensors: StoredTensors, weighted: Sequence[WeightedNode], names: dict[int, str]
) -> dict[int, ShiftConstant]:
    shared = {name for name, calls in Counter(names.values()).items() if calls > 1}
    found = {}
    for node in weighted:
        if node.index in names and names[node.index] not in shared and node.prunable.bias is None:
            rows = node.prunable.weight.shape[0]
            constant = find_shift_constant(graph, tensors, node.output, rows, node.channel_axis)
            if constant is not None:
                found[node.index] = constant
    return found


def _fill(target: Graph, flat: onnx.ModelProto, source: _Source, custom: Sequence[str]) -> None:
    """Write the pieces into a graph of functions: PyTorch's layers, and calls of ONNX Runtime."""
    by_index = {node.index: node for node in source.weighted}
    constants = {constant.name: (source.names[index], constant) for index, constant in source.shifts.items()}
    values: dict[str, Node] = {}
    forms = {name: (constant.shape, constant.dtype) for name, (_, constant) in constants.items()}
    types: dict[str, int] = {name: helper.np_dtype_to_tensor_dtype(dtype) for name, (_, dtype) in forms.items()}
    for each in _inputs(source.graph):
        types[each.name] = each.type.tensor_type.elem_type
        values[each.name] = _add_input(target, each)

    attributes: dict[str, Node] = {}

    def attribute(name: str) -> Node:
        if name not in attributes:
            attributes[name] = target.get_attr(name)
        return attributes[name]

    for piece in source.pieces:
        index = piece.nodes[0]
        if index in source.names:
            node, layer = by_index[index], source.names[index]
            weight = attribute(f"{layer}.weight")
            bias = attribute(f"{layer}.bias") if node.prunable.bias is not None else None
            values[node.output] = node.add_to(target, values[node.data], weight, bias)
            types[node.output] = types[node.data]
            continue
        call = RuntimeCall(flat, piece, types, forms, custom)
        shifts = {name: attribute(f"{layer}.{_SHIFT}") for name, (layer, _) in constants.items() if name in piece.reads}
        reads = [shifts.get(name) or values[name] for name in piece.reads]
        result = target.call_function(call, tuple(reads))
        types |= call.types
        for place, name in enumerate(piece.gives):
            values[name] = target.call_function(operator.getitem, (result, place)) if len(piece.gives) > 1 else result
    for place, each in enumerate(source.graph.output):
        if each.name not in values:
            values[each.name] = attribute(f"{_OUTPUT}{place}")
    outputs = {each.name: values[each.name] for each in source.graph.output}
    target.output(next(iter(outputs.values())) if len(outputs) == 1 else outputs)


def _inputs(graph: onnx.GraphProto) -> list[onnx.ValueInfoProto]:
    initializers = {tensor.name for tensor in graph.initializer}
    return [each for each in graph.input if each.name not in initializers]


def _shape(value: onnx.ValueInfoProto) -> tuple[int | None, ...]:
    """The shape of an input; None for dynamic sizes, which some files write as -1."""
    return tuple(each.dim_value if each.dim_value > 0 else None for each in value.type.tensor_type.shape.dim)


def _add_input(graph: Graph, value: onnx.ValueInfoProto) -> Node:
    """Add an input in the type of the file, which takes floats too: images are floats everywhere else."""
    kind = value.type.tensor_type.elem_type
    return graph.call_function(_as_type, (graph.placeholder(value.name), _INPUT_TYPES.get(kind)))


def _as_type(x: Tensor, kind: torch.dtype | None) -> Tensor:
    if kind is torch.uint8 and x.is_floating_point():  # images on the scale 0..255
        return x.round().clamp(0, 255).to(kind)
    return x.to(kind) if kind is not None and x.is_floating_point() else x


def _digest(model: onnx.ModelProto) -> str:
    """Return a digest of a model of any size."""
    digest = hashlib.sha256()
    for part in (*model.opset_import, *model.functions, *model.graph.node, *model.graph.initializer):
        digest.update(part.SerializeToString())
    return digest.hexdigest()


def _split(inputs: Sequence[Tensor], size: int) -> Iterator[tuple[Tensor, ...]]:
    """Cut inputs (N, ...) into batches of a size."""
    return zip(*(torch.split(x, size) for x in inputs), strict=True)


def _joined(parts: Sequence[Tensor]) -> Tensor:
    return torch.cat([part.reshape(1) if part.ndim == 0 else part for part in parts])


def _near(a: Tensor, b: Tensor) -> bool:
    difference, size = (each.double().norm() for each in (a.double() - b.double(), b))
    return bool(difference <= _SAME * size)


def _text(shape: Sequence[int | None]) -> str:
    return "×".join("?" if size is None else str(size) for size in shape)
