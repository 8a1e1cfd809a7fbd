"""A network from an ONNX file: its layers and batch norms are PyTorch's, and ONNX Runtime computes the rest."""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import onnx
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from export.audit import embedded, graph_inputs, inlined, write_metadata
from export.importing.graph_check import check_graph
from export.importing.network_graph import OUTPUT, SHIFT, find_batch_norms, join_pieces
from export.importing.segments import Piece, cut_graph, sorted_nodes, varying_tensors
from export.importing.shared_weights import layer_names, settle_sharing
from export.importing.shift_constants import ShiftConstant, find_output_scale, find_shift_constant
from export.importing.stored_tensors import StoredTensors, with_values
from export.importing.weight_flow import find_heads
from export.importing.weighted_nodes import WeightedNode, find_weighted_nodes
from sparsegpt_core.errors import ModelError, first_line
from sparsegpt_core.network import (
    WEIGHTED,
    GraphNetwork,
    Layer,
    PrunableLayer,
    ShiftTarget,
    channels_reason,
    check_globs,
    chosen_reason,
    count_vectors,
    find_sample_axis,
    tensors_of,
)
from sparsegpt_core.patterns import Pattern
from sparsegpt_core.reasons import Reason

__all__ = ["OnnxNetwork"]

_PROBE_SIZE = 64  # of a dynamic axis, where the network is tried on random inputs
_MAX_PROBE_NUMBERS = 1 << 27  # 512 MiB
_SAME = 1e-3  # relative; a batch is not computed in the same order as one sample


class OnnxNetwork(GraphNetwork):
    """A network from an ONNX file, which can run and be pruned as a PyTorch module.

    Each Conv, Gemm and MatMul whose weight can change is a layer of PyTorch with the node's name. PyTorch computes
    batch norms too. ONNX Runtime runs the nodes between them. :meth:`to_onnx` returns the file's graph with the layers'
    weights.

    Args:
        model: The model, with its weights in memory, or as :func:`~export.audit.map_model` returns it.

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

    def __init__(self, model: onnx.ModelProto) -> None:
        flat = inlined(model)
        check_graph(flat)
        order, tensors = sorted_nodes(flat.graph), StoredTensors(flat.graph)
        varying = varying_tensors(flat.graph, order)
        weighted = settle_sharing(find_weighted_nodes(flat.graph, tensors, order), tensors, model.graph, varying)
        names = layer_names(weighted)
        shifts = _find_shifts(flat.graph, tensors, weighted, names)
        scales = _find_scales(flat.graph, tensors, weighted, names)
        norms = find_batch_norms(flat.graph, tensors.constants)
        pieces = cut_graph(flat.graph, [*names, *norms], [constant.name for constant in shifts.values()])
        for each in flat.graph.output:
            if tensors.initializer(each.name) is None and (each.name not in varying or not each.name):
                raise ModelError(f"no node computes the graph's output '{each.name}'", "Export the model again.")
        layers = {node.index: (names[node.index], node) for node in weighted if node.index in names}
        super().__init__(join_pieces(flat, pieces, layers, shifts, norms), digest=_digest(model))
        for name, node in layers.values():
            if name == node.name:  # others share its weight
                self.add_layer(name, node.layer)
        for index, constant in shifts.items():
            value = np.asarray(tensors.constants.value(constant.name), dtype=np.float32).reshape(-1)
            self.get_submodule(names[index]).register_buffer(SHIFT, torch.from_numpy(value.copy()))
        for place, each in enumerate(flat.graph.output):
            if (stored := tensors.initializer(each.name)) is not None:
                self.register_buffer(f"{OUTPUT}{place}", torch.from_numpy(np.array(stored)), persistent=False)
        self._source = _Source(model, flat.graph, order, weighted, names, shifts, scales, pieces)
        self.batch_size = self._fixed_batch(flat.graph)

    @property
    def input_shapes(self) -> dict[str, tuple[int | None, ...]]:
        """The shapes of the graph's inputs, by name; None for dynamic sizes."""
        return {each.name: _shape(each) for each in graph_inputs(self._source.graph)}

    def select_layers(
        self, sample: Tensor, pattern: Pattern, include: Sequence[str] = (), exclude: Sequence[str] = ()
    ) -> list[Layer]:
        """List the layers in running order. Each reason says why a layer stays dense.

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
        inputs = self._layer_inputs()
        layers: dict[str, Layer] = {}
        for node in nodes:
            name = source.names.get(node.index, node.name)
            if name in layers and node.reason is None:  # another call of a shared layer
                layers[name] = replace(layers[name], calls=layers[name].calls + 1, shift_target=None, output_scale=None)
                continue
            module: Any = self.get_submodule(name) if node.index in source.names else node.layer
            reason = node.reason or (None if node.index in place else Reason.NOT_REACHED)
            if reason is None:
                reason = channels_reason(module.weight.shape[1], pattern) or chosen_reason(
                    node.name, include, exclude, is_first=node is first, is_head=node.index in heads
                )
            layers[name] = self._layer(node, module, reason, len(sample), inputs.get(name, []))
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
            shift = self.get_submodule(source.names[index]).get_buffer(SHIFT).cpu().numpy()
            values[constant.stored.name] = constant.stored.as_stored(shift.reshape(constant.shape))
        model = with_values(source.model, values)
        if metadata:
            write_metadata(model, metadata)
        return model

    def _layer_inputs(self) -> dict[str, list[torch.Size]]:
        """The shapes of the inputs of each layer, one for each call. The network has run on a sample."""
        products = [node for node in self.graph.nodes if node.target in WEIGHTED]
        shapes: dict[str, list[torch.Size]] = {}
        for node in products:
            x, weight = node.args[:2]
            shapes.setdefault(str(weight.target).removesuffix(".weight"), []).append(x.meta["val"].shape)
        return shapes

    def _layer(
        self, node: WeightedNode, module: nn.Module, reason: Reason | None, samples: int, inputs: list[torch.Size]
    ) -> Layer:
        source = self._source
        if node.index not in source.names:
            return Layer(node.name, module, calls=0, reason=reason)
        target, scale = None, source.scales.get(node.index)
        layer = module if isinstance(module, PrunableLayer) else None
        if node.index in source.shifts:
            target = ShiftTarget(module.get_buffer(SHIFT), source.shifts[node.index].sign)
        elif node.bias is not None:
            target = ShiftTarget(module.get_parameter("bias"), 1)
        return Layer(
            source.names[node.index],
            module,
            calls=1,
            reason=reason,
            common_call=layer,
            shift_target=target,
            output_scale=None if scale is None else scale.to(module.get_parameter("weight").device),
            vectors_per_sample=count_vectors(layer, inputs, samples),
            sample_axis=find_sample_axis(inputs[-1], samples) if isinstance(layer, nn.Linear) else 0,
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
        shapes = [_shape(each) for each in graph_inputs(graph)]
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
                both = tree_leaves(self(*probes))
                self.batch_size = size
                pairs = zip(both, tree_leaves(self(*probes)))
        except (ModelError, RuntimeError, ValueError, TypeError, IndexError):
            return size
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
    """By index of a node whose weight can change the name of its layer in the network."""
    shifts: dict[int, ShiftConstant]
    """By index of such a node the constant that takes up shifts of its outputs."""
    scales: dict[int, Tensor]
    """By index of such a node the scale of the batch norm that alone reads its outputs."""
    pieces: list[Piece]
    """The pieces of the graph in running order."""

    def __deepcopy__(self, memo: dict[int, Any]) -> _Source:
        """Return the same object: nothing in it changes."""
        return self


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


def _find_scales(
    graph: onnx.GraphProto, tensors: StoredTensors, weighted: Sequence[WeightedNode], names: dict[int, str]
) -> dict[int, Tensor]:
    nodes = [node for node in weighted if node.index in names]
    found = {
        node.index: find_output_scale(graph, tensors, node.output, len(node.prunable.weight), node.channel_axis)
        for node in nodes
    }
    return {index: scale for index, scale in found.items() if scale is not None}


def _digest(model: onnx.ModelProto) -> str:
    """Return a digest of a model of any size."""
    digest = hashlib.sha256()
    for part in (*model.opset_import, *model.functions, *model.graph.node, *model.graph.initializer):
        digest.update((embedded(part) if isinstance(part, onnx.TensorProto) else part).SerializeToString())
    return digest.hexdigest()


def _shape(value: onnx.ValueInfoProto) -> tuple[int | None, ...]:
    """The shape of an input; None for dynamic sizes, which some files write as -1."""
    return tuple(each.dim_value if each.dim_value > 0 else None for each in value.type.tensor_type.shape.dim)


def _near(a: Tensor, b: Tensor) -> bool:
    difference, size = (each.double().norm() for each in (a.double() - b.double(), b))
    return bool(difference <= _SAME * size)


def _text(shape: Sequence[int | None]) -> str:
    return "×".join("?" if size is None else str(size) for size in shape)
