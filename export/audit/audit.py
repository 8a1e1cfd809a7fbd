"""Audits an ONNX model: finds the weights that have the pattern on TensorRT's axis, and why the others do not.

TensorRT requires, for a convolution weight (K, C, R, S), at most N non-zeros in every M consecutive input channels at
each (k, r, s). For Gemm and MatMul the groups run along the reduction axis. The audit needs only onnx and NumPy.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Optional, Union

import onnx

from export.audit.constant_values import Constants
from export.audit.graph_parts import integer_attribute, node_name
from export.audit.inlining import inlined
from export.audit.metadata import read_metadata
from export.audit.model_files import map_model
from sparsegpt_core.errors import CheckFailedError
from sparsegpt_core.patterns import NM, Violations, find_violations
from sparsegpt_core.reasons import Reason

__all__ = ["AuditResult", "AuditedLayer", "audit_model"]

_HINT = "The stage must keep names, axes and zeros of pruned weights. Leave it out, or `exclude` the layer."


@dataclass(frozen=True)
class AuditedLayer:
    """One Conv, ConvTranspose, Gemm or MatMul node."""

    name: str
    """The node's name."""
    weight: str
    """The name of the initializer or Constant that its weight comes from."""
    op: str
    """The node's operator."""
    shape: Optional[tuple[int, ...]]
    """The weight's shape; None where the weight is not constant."""
    dtype: Optional[str]
    """The NumPy type in which the file stores or quantises the weight; None where the weight is not constant."""
    axis: int
    """The weight's axis that the groups of M run along."""
    groups: int
    """The convolution's groups; 1 for other nodes."""
    violations: Optional[int]
    """Groups of M with more than N non-zeros; None where the weight is not constant or has no whole groups."""
    is_sparse: bool
    """Whether the weight has the pattern and a non-zero."""
    eligible: bool
    """Whether TensorRT may run the layer with sparse kernels."""
    reason: Optional[Reason]
    """Why the layer is not eligible; None if it is."""
    first_violation: Optional[dict[str, int]]
    """The index of the first violating group, by axis name; None if there is none."""
    nonzeros: Optional[int]
    """Non-zeros of the weight; None like ``violations``."""
    obstacle: Optional[str]
    """Why the weight is not constant; None if it is."""


@dataclass(frozen=True)
class AuditResult:
    """The audit of a whole model."""

    model: str
    """The model's path or name."""
    pattern: str
    """The pattern, such as ``2:4``."""
    layers: tuple[AuditedLayer, ...]
    """The layers, in the graph's order."""

    @property
    def sparse_layers(self) -> int:
        """The number of weights that have the pattern."""
        return sum(layer.is_sparse for layer in self.layers)

    @property
    def eligible_layers(self) -> int:
        """The number of layers that TensorRT may run with sparse kernels."""
        return sum(layer.eligible for layer in self.layers)

    def failures(self, level: str) -> list[AuditedLayer]:
        """Return the layers that fail a check.

        Args:
            level: ``dense``: layers that could be sparse and are not, except those that the model's metadata lists as
                dense on purpose. ``ineligible``: all layers that are not eligible.
        """
        if level == "ineligible":
            return [layer for layer in self.layers if not layer.eligible]
        return [layer for layer in self.layers if layer.reason in (Reason.NOT_NM, Reason.ALL_ZERO)]

    def require_sparse(self, names: Iterable[str], stage: str, before: Optional[AuditResult] = None) -> None:
        """Check that the pruned layers are still sparse in this file.

        Args:
            names: The modules that were pruned. Their nodes have the same names.
            stage: The last step of the export, for the message.
            before: The audit of the model before that step, which helps to find the cause.

        Raises:
            CheckFailedError: A layer lost its pattern; says which layer, where and why.
        """
        now, then = ({layer.name: layer for layer in each.layers} if each else {} for each in (self, before))
        for name in names:
            if name not in now:
                raise CheckFailedError(f"{stage}: the pruned layer {name} is not in the graph", _HINT)
            if now[name].violations != 0:  # a layer whose inputs are all dead is pruned to zeros
                cause = _cause(now[name], then.get(name))
                raise CheckFailedError(f"{stage}: {name} is no longer {self.pattern}: {cause}", _HINT)

    def to_json(self) -> dict[str, Any]:
        """Return what ``verify --json`` prints."""
        return {
            "model": self.model,
            "pattern": self.pattern,
            "layers": [asdict(layer) for layer in self.layers],
            "sparse_layers": self.sparse_layers,
            "eligible_layers": self.eligible_layers,
        }


def audit_model(model: Union[Path, onnx.ModelProto], pattern: Optional[NM] = None, name: str = "") -> AuditResult:
    """Audit every Conv, ConvTranspose, Gemm and MatMul, including those in the bodies of If and Loop.

    Args:
        model: A file or a model in memory.
        pattern: The pattern to check; by default the one in the model's metadata, else 2:4.
        name: The name of a model in memory.

    Raises:
        InputError: The file cannot be read as ONNX.

    Example:
        >>> import onnx.parser
        >>> model = onnx.parser.parse_model('''
        ...     <ir_version: 8, opset_import: ["": 17]>
        ...     linear (float[N, 4] x) => (float[N, 1] y)
        ...     <float[4, 1] w = {1.0, 0.0, 2.0, 0.0}> { y = MatMul(x, w) }
        ... ''')
        >>> result = audit_model(model)
        >>> result.pattern, result.sparse_layers, result.layers[0].nonzeros
        ('2:4', 1, 2)
    """
    if isinstance(model, Path):
        name = str(model)
        model = map_model(model)
    metadata = read_metadata(model)
    if pattern is None:
        pattern = _recorded_pattern(metadata) or NM(2, 4)
    dense = _recorded_reasons(metadata)
    layers = [_audit_node(node, constants, pattern, dense) for node, constants in _nodes(inlined(model).graph)]
    return AuditResult(name, str(pattern), tuple(layers))


def _recorded_pattern(metadata: dict[str, Any]) -> Optional[NM]:
    n, colon, m = str(metadata.get("pattern", "")).partition(":")
    known = colon and all(each.isascii() and each.isdigit() and len(each) < 10 for each in (n, m))
    return NM(int(n), int(m)) if known else None


def _recorded_reasons(metadata: dict[str, Any]) -> dict[str, Reason]:
    reasons = metadata.get("dense")
    if not isinstance(reasons, dict):
        return {}
    known = {layer: Reason(code) for layer, code in reasons.items() if str(code) in Reason.__members__}
    functional = [layer for layer, reason in known.items() if reason == Reason.USED_BY_FUNCTION]
    # A function's node has the name of the module that calls it, and the weight that of a module or parameter in it.
    return {**{layer.rpartition(".")[0]: Reason.USED_BY_FUNCTION for layer in functional}, **known}


def _nodes(graph: onnx.GraphProto, outer: Optional[Constants] = None) -> Iterator[tuple[onnx.NodeProto, Constants]]:
    constants = Constants(graph, outer)
    for node in graph.node:
        if node.op_type in ("Conv", "ConvTranspose", "Gemm", "MatMul") and len(node.input) > 1:
            yield node, constants
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                yield from _nodes(attribute.g, constants)


def _audit_node(node: onnx.NodeProto, constants: Constants, pattern: NM, dense: dict[str, Reason]) -> AuditedLayer:
    name = node_name(node)
    weight = constants.value(node.input[1])
    axis = _reduction_axis(node, 0 if weight is None else weight.ndim)
    found: Optional[Violations] = None
    if weight is not None and axis < weight.ndim and weight.shape[axis] % pattern.m == 0 and weight.size:
        found = find_violations(weight, pattern, axis)
    is_sparse = found is not None and found.count == 0 and found.nonzeros > 0
    reason = _structural_reason(node, found is not None, weight is not None)
    if reason is None and not is_sparse:
        missing = Reason.NOT_NM if found and found.count else Reason.ALL_ZERO
        reason = dense.get(name.partition("#")[0], missing)  # a module's second call is "name#2"
    return AuditedLayer(
        name=name,
        weight=str(constants.source(node.input[1])),
        op=node.op_type,
        shape=None if weight is None else tuple(weight.shape),
        dtype=constants.dtype(node.input[1]),
        axis=axis,
        groups=integer_attribute(node, "group", 1),
        violations=None if found is None else found.count,
        is_sparse=is_sparse,
        eligible=reason is None,
        reason=reason,
        first_violation=_named(node, axis, found),
        nonzeros=None if found is None else found.nonzeros,
        obstacle=constants.obstacle(node.input[1]) if weight is None else None,
    )


def _cause(now: AuditedLayer, then: Optional[AuditedLayer]) -> str:
    if now.obstacle is not None:
        return f"its weight is no longer constant: {now.obstacle}"
    what = f"{now.op} {now.shape} in {now.dtype}"
    if now.violations is None:
        return f"axis {now.axis} of {what} has no whole groups"
    causes = [f"{now.violations} groups violate it, the first at {now.first_violation}"]
    if then is not None and (then.shape, then.axis) != (now.shape, now.axis):
        causes.append(f"groups run along axis {now.axis} of {what}, before along axis {then.axis} of {then.shape}")
    elif then is not None and (then.nonzeros or 0) < (now.nonzeros or 0):
        causes.append(f"{(now.nonzeros or 0) - (then.nonzeros or 0)} zeros of {then.dtype} became non-zeros in {what}")
    return "; ".join(causes)


def _reduction_axis(node: onnx.NodeProto, dimensions: int) -> int:
    if node.op_type == "MatMul":
        return max(dimensions - 2, 0)
    if node.op_type == "Gemm":
        return int(integer_attribute(node, "transB", 0) != 0)
    return 1 if node.op_type == "Conv" else 0


def _structural_reason(node: onnx.NodeProto, fits: bool, constant: bool) -> Optional[Reason]:
    if node.op_type == "ConvTranspose":
        return Reason.TRANSPOSED
    if integer_attribute(node, "group", 1) > 1:
        return Reason.GROUPED
    if not constant:
        return Reason.NOT_CONSTANT
    return None if fits else Reason.CHANNELS_NOT_MULTIPLE


def _named(node: onnx.NodeProto, axis: int, found: Optional[Violations]) -> Optional[dict[str, int]]:
    """Name the axes of the first violating group: k, c_group, the kernel's r, s, t, a batch's b0, b1, b2."""
    if found is None or found.first is None:
        return None
    if node.op_type.startswith("Conv"):
        names = ["k", "r", "s", "t"]
    else:
        names = [*(f"b{index}" for index in range(len(found.first) - 2)), "k"]
    names.insert(axis, "c_group")
    return dict(zip(names, found.first))
