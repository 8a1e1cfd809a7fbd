"""What is known of one engine, from its build, its log, its inspector and its profiler."""

from __future__ import annotations

__all__ = ["Evidence"]

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Optional, Tuple

from deploy.builder import EngineLayer, SparsityLog, node_names
from sparsegpt_core.reasons import Reason


@dataclass(frozen=True)
class Evidence:
    """What is known of one engine; what is not known is left out.

    Args:
        sparse_flag: Whether the builder was allowed sparse kernels.
        has_sparse_kernels: Whether the graph holds a precision with 2:4 kernels (``Graph.has_sparse_kernels``).
        compute_capability: Of the GPU, such as ``8.6``.
        log: What the build log says.
        memory_skips: How many tactics the builder skipped for want of memory.
        layers: What the engine inspector says.
        times: Milliseconds of every engine layer by its name: medians of what TensorRT's profiler reports.
    """

    sparse_flag: bool = True
    has_sparse_kernels: bool = True
    compute_capability: Optional[str] = None
    log: SparsityLog = field(default_factory=SparsityLog)
    memory_skips: int = 0
    layers: Tuple[EngineLayer, ...] = ()
    times: Mapping[str, float] = field(default_factory=dict)

    @property
    def obstacle(self) -> Optional[Reason]:
        """What rules out sparse kernels in the whole engine."""
        if not self.sparse_flag:
            return Reason.FLAG_OFF
        if self.compute_capability is not None and int(self.compute_capability.partition(".")[0]) < 8:
            return Reason.GPU_BEFORE_AMPERE
        return None if self.has_sparse_kernels else Reason.FP32_GRAPH

    def engine_layers(self, node: str) -> Tuple[EngineLayer, ...]:
        """Return the engine's layers that an ONNX node became; those of no inspected engine go by their names."""
        layers = self.layers or (EngineLayer(name, origins=node_names(name)) for name in self.times)
        return tuple(layer for layer in layers if _mentions(layer.origins, node))

    def time_ms(self, node: str) -> Optional[float]:
        """Return the milliseconds of the engine layers that an ONNX node became, with all that is fused to it."""
        names = {layer.name for layer in self.engine_layers(node)} & set(self.times)
        return sum(self.times[name] for name in names) if names else None

    def uses_sparse_kernel(self, node: str) -> Optional[bool]:
        """Say whether a sparse kernel runs an ONNX node: by its tactic, else by the log; None where neither tells."""
        kernels = [layer.sparse for layer in self.engine_layers(node)]
        if any(each is not None for each in kernels):
            return any(kernels)
        if self.obstacle is not None or self.log.chosen == 0:
            return False
        if _listed(self.log.chosen_names, node):
            return True
        return False if self.log.chosen_names is not None and _listed(self.log.eligible_names, node) else None


def _listed(layers: Optional[Iterable[str]], node: str) -> bool:
    return any(_mentions(node_names(layer), node) for layer in layers or ())


def _mentions(origins: Tuple[str, ...], node: str) -> bool:
    return node in origins or f"node_of_{node}" in origins  # so TensorRT calls nodes without a name, by their output
