"""What is known of one engine: from its build, its log, its inspector and its profiler."""

from __future__ import annotations

__all__ = ["Evidence"]

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Optional, Set, Tuple

from deploy.builder import EngineLayer, SparsityLog, node_names
from deploy.machine import has_sparse_tensor_cores
from sparsegpt_core.reasons import Reason


@dataclass(frozen=True)
class Evidence:
    """What is known of one engine. Unknown facts are left out."""

    sparse_flag: bool = True
    """Whether the builder was allowed sparse kernels."""
    has_sparse_kernels: bool = True
    """Whether the graph has a precision with 2:4 kernels."""
    compute_capability: Optional[str] = None
    """The GPU's, such as ``8.6``."""
    log: SparsityLog = field(default_factory=SparsityLog)
    """The builder's own counts."""
    memory_skips: int = 0
    """Tactics that the builder skipped for lack of memory."""
    layers: Tuple[EngineLayer, ...] = ()
    """The layers as the engine inspector describes them."""
    times: Mapping[str, float] = field(default_factory=dict)
    """Median milliseconds of each engine layer by name, from TensorRT's profiler."""
    noise: Mapping[str, float] = field(default_factory=dict)
    """The relative difference between several measurements of each engine layer, by name."""

    @property
    def obstacle(self) -> Optional[Reason]:
        """The reason that rules out sparse kernels in the whole engine, if there is one."""
        if not self.sparse_flag:
            return Reason.FLAG_OFF
        if self.compute_capability is not None and not has_sparse_tensor_cores(self.compute_capability):
            return Reason.GPU_BEFORE_AMPERE
        return None if self.has_sparse_kernels else Reason.FP32_GRAPH

    def engine_layers(self, node: str) -> Tuple[EngineLayer, ...]:
        """Return the engine layers that run an ONNX node. Without an inspector they are known by the timed names."""
        layers = self.layers or (EngineLayer(name, origins=node_names(name)) for name in self.times)
        return tuple(layer for layer in layers if _mentions(layer.origins, node))

    def time_ms(self, node: str) -> Optional[float]:
        """Return the milliseconds of the engine layers that run an ONNX node, including nodes fused with it."""
        names = self._timed_names(node)
        return sum(self.times[name] for name in names) if names else None

    def noise_of(self, node: str) -> Optional[float]:
        """Return the relative noise of ``time_ms``, as if all of its engine layers deviated together."""
        total = self.time_ms(node)
        if not total:
            return None
        return sum(self.times[name] * self.noise.get(name, 0.0) for name in self._timed_names(node)) / total

    def _timed_names(self, node: str) -> Set[str]:
        return {layer.name for layer in self.engine_layers(node)} & set(self.times)

    def uses_sparse_kernel(self, node: str) -> Optional[bool]:
        """Return whether a sparse kernel runs an ONNX node, by its tactic, else by the log; None if neither says."""
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
    return node in origins or f"node_of_{node}" in origins  # TensorRT names an unnamed node after its output
